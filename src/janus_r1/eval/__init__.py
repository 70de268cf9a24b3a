"""Benchmarks, one a file, with their statistics and report.

``statistics`` means with 95 % intervals over prompts, paired differences, AUROC, calibration
``world``      introspection, verdicts and equal-cost controls on the world ``shapes``
``judge``      verdicts of any judge on one fixed set of drafts
``audit``      what a model accepts though it is wrong, and rejects though it is right
``study``      variants of a run with several seeds each, compared; ``repeats`` are its intervals
``similarity`` PSNR and SSIM of two pictures, also outside an edited region
``report``     the result of ``world`` as a terminal table or Markdown
"""
