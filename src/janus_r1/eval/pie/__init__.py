"""PIE-Bench (Ju et al., arXiv 2310.01506): 700 pictures to edit, in ten types, with the edited region as a mask.

What is done is that benchmark's own protocol, deviations included, so that its published tables are comparable;
docs/editing.md says exactly what. The folder with the pictures is the user's own copy.
"""
