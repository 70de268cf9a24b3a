"""Worlds: where tasks come from and how truth is known. General code reaches one by name, never by import."""
