"""The loss of group relative policy optimisation and its two parts: pure functions.

Shao et al., 2024 (GRPO), and the paper's appendix A. All arguments are flat over tokens [N].
"""

from __future__ import annotations

import torch

from janus_r1.train.rl.trajectory import Flat


def token_loss(
    now: torch.Tensor, flat: Flat, fixed: torch.Tensor | None, clip: float, kl: float
) -> tuple[torch.Tensor, dict[str, float]]:
    """Weighted sum over tokens of -objective + kl k3, and what to watch (means over tokens)."""
    objective, acted = clipped_objective(now, flat.old, flat.advantages, clip)
    loss = -(flat.weights * objective).sum()
    gap = (now.detach() - flat.old).abs()
    watched = {"clipped": float(acted.float().mean()), "gap": float(gap.mean())}
    if fixed is not None:
        divergence = k3(now, fixed)
        loss = loss + kl * (flat.weights * divergence).sum()
        watched["kl"] = float(divergence.detach().mean())
    return loss, watched


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
