"""The commands of ``janus-r1``: functions whose arguments are their options; ``cli`` names them.

``draw``      generate, edit, judge
``train``     what every stage does around its training
``evaluate``  the benchmarks
``convert``   convert, average
``data``      the world's prompts and edits

``model``, ``output`` and ``terminal`` are what they have in common.
"""
