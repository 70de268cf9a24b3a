"""Muon: momentum whose update is brought to a nearly orthogonal matrix, for hidden weights.

From-scratch training of the tiny models is several times as sample-efficient with it as with
AdamW. torch ships a Muon for matrices only; this one also takes convolutions (as matrices of
[out, in * k * k]), which is where the image tokenizer gains most. Method: Jordan et al., 2024.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

# Coefficients of the quintic iteration that takes every singular value close to 1 (Jordan et al.).
_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalise(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest semi-orthogonal matrices of [..., m, n], roughly: singular values end up in [0.7, 1.2]."""
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; the step has an RMS of ``lr`` times 0.2 (as AdamW's).

    Matrices of one shape go together: on a GPU a small model's step is bound by the number of kernels.
    """

    def __init__(self, params: Iterable, lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameters in _alike(group["params"]):
                self._update(parameters, [p.grad for p in parameters], group)
        return loss

    def _update(self, parameters: list[torch.Tensor], gradients: list[torch.Tensor], group: dict) -> None:
        """``parameters`` are of one shape."""
        momenta = [self._momentum(parameter) for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        nesterov = torch._foreach_lerp(gradients, momenta, group["momentum"])
        updates = orthogonalise(torch.stack([matrix.flatten(1) for matrix in nesterov]))
        scale = 0.2 * max(updates.shape[1:]) ** 0.5  # an orthogonal [m, n] has RMS 1 / sqrt(max(m, n))
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        steps = [update.view_as(p) for update, p in zip(updates, parameters, strict=True)]
        torch._foreach_add_(parameters, steps, alpha=-group["lr"] * scale)

    def _momentum(self, parameter: torch.Tensor) -> torch.Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        return state["momentum"]


def _alike(parameters: Iterable[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Those with gradients, by shape."""
    found: dict[torch.Size, list[torch.Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            found.setdefault(parameter.shape, []).append(parameter)
    return list(found.values())
