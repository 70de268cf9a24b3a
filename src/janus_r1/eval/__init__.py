"""Benchmarks, one a file, with their statistics and reports.

``world``      introspection and verdicts on the world ``shapes``, with its ``drafts`` and equal-cost ``controls``
``edit``       following and preserving on edits of the world; ``pie`` PIE-Bench from a user's own copy
``judge``      verdicts of any judge on one fixed set of drafts
``audit``      what a model accepts though it is wrong, and rejects though it is right
``tokenizer``  what an image tokenizer keeps of fresh scenes

``statistics`` means with 95 % intervals over prompts, paired differences, AUROC, calibration
``similarity`` PSNR and SSIM of two pictures, also outside an edited region
``balance``    one of each kind in turn; ``checks`` what benchmarks refuse
``report``     a result as terminal tables or Markdown; ``tables`` and ``*_report`` are its parts
``study``      variants of a run with several seeds each, compared; ``repeats`` are its intervals
"""
