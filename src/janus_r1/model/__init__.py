"""transformers' Janus modules behind one thin wrapper, their presets, loading and saving.

``tokenizer`` special tokens by name
``vq``        the image tokenizer, always in float32
``janus``     the wrapper
``matrices``  the language model's matrices side by side, or in 8 bits
``presets``   sizes of models that are built from nothing
``original``  DeepSeek's checkpoints, ``streaming`` reads their weights one by one
``adapters``  LoRA
``loading``   model folders, and the mean of several

Uses transformers' classes and layout, not their ``generate`` and not their loss.
"""
