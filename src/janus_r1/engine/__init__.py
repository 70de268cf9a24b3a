"""The KV-cached decoder: open, feed, draw, say, keep.

``cache``    preallocated keys and values; every row has its own length; streams
``network``  the language model's matrices, laid out for few rows, and a forward over new tokens
``sampling`` guidance, filtering and inverse-CDF sampling with random numbers that belong to a row
``graph``    drawing with static shapes, a CUDA graph a token on a GPU
``kernels``  what these graphs are made of in bfloat16
``window``   drawing several ids a forward, for the same image
``decoder``  the verbs
"""
