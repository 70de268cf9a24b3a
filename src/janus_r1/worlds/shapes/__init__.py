"""The world ``shapes``: a closed domain with prompts, edits, a renderer and an exact verifier.

``scene``        what can be drawn, scenes that a description allows, and their 64x64 RGB pixels
``language``     the words of prompts and instructions, and from text back to what it means
``prompts``      families of prompts, the train/test/held-out splits, and what differs from a prompt in one fact
``verifier``     pixels -> objects -> which facts hold, and why not; knows nothing of any model
``edits``        what an edit is, which object it means, and the scene that it makes
``edit_cases``   random edits of random scenes, and the editing splits
``verify_edit``  two pictures and the edits -> following, preserving and a reason in words
``mistakes``     edits that went wrong in one known way
``questions``    questions, checklists and statements with their true answers
``world``        all of it as :class:`janus_r1.worlds.base.World`
``training``     what only this world's from-scratch models need: image tokenizer, encoder, pretraining
"""
