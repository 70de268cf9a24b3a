"""The world ``shapes``: a closed domain with prompts, a renderer and an exact verifier.

``scene``    what can be drawn, and sampling of scenes that a description allows
``render``   scene -> 64x64 RGB pixels
``prompts``  families of prompts, their wordings and the train/test/held-out splits
``parse``    a prompt's text -> what it describes, or nothing
``verify``   pixels -> objects -> score and a reason in words; knows nothing of any model

Editing:

``edits``         what an edit is, which object it means, and the scene that it makes
``instructions``  edits -> text in many wordings, and back
``edit_cases``    random edits of random scenes, and the editing splits
``verify_edit``   two pictures and the edits -> following, preserving and a reason in words
``mistakes``      edits that went wrong in one known way
"""
