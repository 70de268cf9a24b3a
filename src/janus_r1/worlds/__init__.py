"""Worlds: where tasks come from and how truth is known. General code reaches one by name, never by import."""

DEFAULT = "shapes"  # the world that is meant where none is named
