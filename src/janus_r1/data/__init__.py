"""Candidates (scored images), building them, and turning them into SFT rows."""
