"""The KV-cached decoder: open, feed, draw, say, keep.

``weights``  the language model's matrices, fused, as views of transformers' memory; a small CPU model's laid out anew
``cache``    preallocated keys and values; every row has its own length
``sampling`` guidance, filtering and inverse-CDF sampling with random numbers that belong to a row
``graph``    drawing with static shapes, a CUDA graph a token on a GPU
``decoder``  the verbs
"""
