"""Rewards: how well an image matches its prompt, in [0, 1], or an abstention that says why.

``score``     what is scored, what a scorer answers, what a recipe says of one, and the weighted mean of several
``world``     the exact verifier of the world ``shapes``
``janus``     a Janus checkpoint as judge
``local_vlm`` a vision-language model through transformers
``endpoint``  one behind an OpenAI-compatible server; ``chat`` calls it, ``cache`` remembers
``python``    a function of the user's own
``questions`` what is asked about an image, P(yes) over the spellings of yes and no, and how answers make one score
``build``     all of this from a recipe
"""
