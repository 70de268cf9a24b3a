"""Training. ``sft`` and ``rl`` are loops that read from top to bottom; the other files are what they call.

``loop``       steps, signals, resume, with ``checkpoint``, ``log`` and ``optim``
``prepare``    the models of a run: the one that is trained, and the one that generates
``objective``  the loss of supervised rows; ``ahead`` prepares the rows of coming steps
``rollout``    chains and their rewards, ``credit`` their advantages, ``policy`` their loss, ``stability`` the way back
``lora``       small matrices beside frozen ones
``processes``  this process among others, ``state`` what of a tensor it holds
"""
