"""Candidates (scored images) and edits: building them, reading them, and turning them into training rows."""
