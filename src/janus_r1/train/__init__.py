"""Training stages. ``loop`` runs steps, checkpoints and logs; each other file is one stage."""
