"""Benchmarks, one a file, with their statistics and report.

``statistics`` means with 95 % intervals over prompts, paired differences, AUROC, calibration
``world``      introspection, verdicts and equal-cost controls on the world ``shapes``
``similarity`` PSNR and SSIM of two pictures, also outside an edited region
``report``     the result of ``world`` as a terminal table or Markdown
"""
