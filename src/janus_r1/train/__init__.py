"""Training. ``loop`` runs the steps of a stage, with ``checkpoint``, ``log``, ``schedule``; a stage is a file."""
