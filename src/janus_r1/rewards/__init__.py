"""Rewards: how well an image matches its prompt, in [0, 1], or an abstention that says why.

``score``     what is scored, and what a scorer answers
``world``     the exact verifier of the world ``shapes``
``janus``     a Janus checkpoint as judge
``local_vlm`` a vision-language model through transformers
``endpoint``  one behind an OpenAI-compatible server; ``chat`` calls it, ``cache`` remembers
``questions`` what is asked about an image, and how the answers make one score
``yes_no``    P(yes) over the spellings of yes and no
``reasons``   whether what a verdict says is true, by the world's verifier
``ensemble``  a weighted mean of several
``build``     all of this from a recipe
"""
