"""The world ``shapes``: a closed domain with prompts, a renderer and an exact verifier.

``scene``    what can be drawn, and sampling of scenes that a description allows
``render``   scene -> 64x64 RGB pixels
``prompts``  families of prompts, their wordings and the train/test/held-out splits
``parse``    a prompt's text -> what it describes, or nothing
``verify``   pixels -> objects -> score and a reason in words; knows nothing of any model
"""
