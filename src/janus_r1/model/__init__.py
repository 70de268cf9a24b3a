"""transformers' Janus modules behind one thin wrapper, their presets, loading and saving.

Uses transformers' classes and layout, not their ``generate`` and not their loss.
"""
