"""Benchmarks, one a file, with their statistics and reports.

``world``       introspection and verdicts on a world, of prompts to draw or of edits; ``drafts`` is what is
                computed with, controls at equal cost among it
``judge``       verdicts of any judge on one fixed set of drafts, or on the user's own rows
``pie``         PIE-Bench from a user's own copy; ``similarity`` is PSNR and SSIM, also outside an edited region
``benchmark``   GenEval and the like, built in: draw, score, report; PIE-Bench is one of them

``statistics``  means with 95 % intervals over prompts, paired differences, AUROC, calibration
``protocol``    which items are taken, what a model is asked, what is refused
``report``      a result as terminal tables or Markdown, made of ``tables``
"""
