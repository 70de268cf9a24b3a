"""Reinforcement learning on whole chains: rollout -> credit -> policy -> loss, in ``stage.py``."""
