"""The commands of ``janus-r1``: functions whose arguments are their options; ``cli`` names them.

``draw``      generate, edit, judge
``train``     what every stage does around its training
``evaluate``  the evaluations of a world's tasks and of judges; ``measure`` is what they have in common
``data``      people's own data, and the tasks of a world

``model``     convert and average, and the model that a command was asked to use
``output``    what all say, and where it goes
"""
