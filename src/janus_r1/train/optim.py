"""How weights move: Muon and AdamW, which of them trains what, and the moving average of the weights.

Muon brings the momentum of a hidden matrix to a nearly orthogonal one (Jordan et al., 2024). From-scratch training of
the tiny models is several times as sample-efficient with it as with AdamW. torch.optim.Muon computes the same for
matrices; ours also takes convolutions (as matrices of [out, in * k * k]), where the image tokenizer gains most, and all
matrices of one shape together.

The exponential moving average of what is trained evens out the noise of the last steps: on the tiny model the mean of a
few trainings was worth more than any of them (docs/log.md). torch's AveragedModel would copy the frozen part, too, and
knows nothing of weights that FSDP2 has cut up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import nn

from janus_r1.errors import UserError
from janus_r1.model.janus import Janus
from janus_r1.train.processes import gathered, like, sharded

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


# ------------------------------------------------------------------------ which weight by which

# Tables and heads: their rows are looked up or scored one by one, so Muon does not suit them.
_TABLES = ("embed_tokens", "generation_embeddings", "lm_head", "vision_head", "embeddings")


def muon_and_adamw(janus: Janus, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """For training from scratch: Muon for hidden matrices, AdamW for tables, norms and biases.

    Raises:
        UserError: under FSDP2, which leaves a process only rows of a matrix: nothing to make orthogonal.
    """
    if sharded():
        raise UserError("Muon needs whole matrices, which FSDP2 cuts up: set optimizer: adamw")
    return _muon_for(janus, _is_hidden, lr, weight_decay)


def muon_for_encoders(module: nn.Module, lr: float, weight_decay: float = 0.0) -> list[torch.optim.Optimizer]:
    """For an image encoder from scratch: Muon for matrices and convolutions, AdamW for norms and biases."""
    return _muon_for(module, lambda name, parameter: parameter.ndim >= 2, lr, weight_decay)


def _is_hidden(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and not any(table in name for table in _TABLES)


def _muon_for(
    module: nn.Module, chosen: Callable[[str, nn.Parameter], bool], lr: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """Muon for what is ``chosen`` of the trained parameters, AdamW without decay for the rest."""
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    rest = [parameter for name, parameter in trained.items() if not chosen(name, parameter)]
    return [
        Muon([p for name, p in trained.items() if chosen(name, p)], lr=lr, weight_decay=weight_decay),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, fused=_fused(rest)),
    ]


def adamw(janus: Janus, lr: float, weight_decay: float) -> list[torch.optim.Optimizer]:
    """For finetuning, with the paper's settings (Table 5); no decay of norms and biases."""
    trained = [p for p in janus.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), eps=1e-6, fused=_fused(trained))]


def _fused(parameters: Sequence[torch.Tensor]) -> bool | None:
    """Whether one kernel updates them all: where they are whole and on a GPU; elsewhere as torch thinks best."""
    return True if parameters and not sharded() and all(p.is_cuda for p in parameters) else None


# ------------------------------------------------------------------------------------- average


class Ema:
    """Begins with the module's weights; ``decay`` is what is kept of it in a step.

    The decay warms up as (1 + step) / (10 + step), so that a short run is an average of its steps and not of its begin.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.trained = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
        self.average = {name: weight.detach().clone() for name, weight in self.trained.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Called behind the optimizers."""
        self.steps += 1
        kept = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(list(self.average.values()), list(self.trained.values()), 1 - kept)

    @torch.no_grad()
    def put(self) -> None:
        """The average in the place of the trained weights."""
        for name, weight in self.trained.items():
            weight.copy_(self.average[name])

    def state(self) -> dict[str, torch.Tensor]:
        """Collective; whole tensors in the main process."""
        return gathered({**self.average, "steps": torch.tensor(self.steps)})

    @torch.no_grad()
    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        self.steps = int(state["steps"])
        for name, weight in self.average.items():
            weight.copy_(like(state[name], weight))
