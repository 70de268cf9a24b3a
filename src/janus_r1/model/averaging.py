"""The mean of several models' weights: one model, no slower than each of them.

Stages that were trained one from another lie so near each other that what lies between them works, and the noise of the
last steps averages out ("Model soups", arXiv 2203.05482).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from janus_r1.errors import UserError, require
from janus_r1.model.janus import Janus
from janus_r1.model.loading import load


@torch.no_grad()
def average(sources: Sequence[str]) -> Janus:
    """The plain mean, in float32. What all have in common stays as it is, bit for bit.

    Raises:
        UserError: for fewer than two models, or for models of different sizes or tokenizers.
    """
    require(len(sources) >= 2, "average takes two models or more")
    result = load(sources[0], "float32")
    own, common = result.core.state_dict(), {}
    for name, weight in own.items():
        if weight.is_floating_point():
            common[name] = weight.clone()
            weight.mul_(1 / len(sources))
    for source in sources[1:]:
        other = load(source, "float32")
        _check(result, other, sources[0], source)
        theirs = other.core.state_dict()
        for name, weight in own.items():
            if name in common and not torch.equal(common[name], theirs[name]):
                del common[name]
            if weight.is_floating_point():
                weight.add_(theirs[name] * (1 / len(sources)))
    for name, weight in common.items():
        own[name].copy_(weight)
    return result


def _check(one: Janus, other: Janus, first: str, source: str) -> None:
    shapes = [{name: weight.shape for name, weight in janus.core.state_dict().items()} for janus in (one, other)]
    if shapes[0] != shapes[1]:
        raise UserError(f"{source} is not of the same size as {first}: models to average come from one another")
    if one.tokenizer.get_vocab() != other.tokenizer.get_vocab():
        raise UserError(f"{source} has another tokenizer than {first}: models to average come from one another")
