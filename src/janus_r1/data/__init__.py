"""Candidates (scored images), edits and prompts: building them, reading them, turning them into training rows."""
