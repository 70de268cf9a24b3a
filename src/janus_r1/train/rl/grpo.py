"""The two losses of group relative policy optimisation, a number a token: pure functions.

Shao et al., 2024 (GRPO), and the paper's appendix A. All arguments are flat over tokens [N].
"""

from __future__ import annotations

import torch


def clipped_objective(
    logprobs: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, clip: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """min(rho A, clip(rho, 1 - eps, 1 + eps) A) with rho = exp(logprobs - old), and where the clip acts.

    ``old`` are the sampler's own log-probs: of the rollout's weights, not of the current ones.
    """
    ratio = (logprobs - old).exp()
    free = ratio * advantages
    bound = ratio.clamp(1 - clip, 1 + clip) * advantages
    return torch.minimum(free, bound), bound < free


def k3(logprobs: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """pi_ref/pi - log(pi_ref/pi) - 1: an estimate of KL(pi || pi_ref) that is never negative."""
    difference = reference - logprobs
    return difference.exp() - difference - 1
