"""Next-token losses of rows of segments: only positions that are learnt reach a head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from janus_r1.model.janus import Janus
from janus_r1.segments import Drawn, Row, Text, row_length


@dataclass
class Targets:
    """Flat positions (b * L + l) whose hidden state predicts a learnt token, and that token."""

    image_at: torch.Tensor
    image_ids: torch.Tensor
    text_at: torch.Tensor
    text_ids: torch.Tensor
    text_weights: torch.Tensor


def targets(rows: list[Row]) -> Targets:
    """Collect the learnt tokens of ``rows``; the token at position p is predicted from p - 1."""
    longest = max(map(row_length, rows))
    image_at: list[int] = []
    image_ids: list[int] = []
    text_at: list[int] = []
    text_ids: list[int] = []
    weights: list[float] = []
    for b, row in enumerate(rows):
        position = b * longest
        for segment in row:
            before = range(position - 1, position - 1 + len(segment))
            if isinstance(segment, Drawn) and segment.learn:
                image_at += before
                image_ids += segment.ids
            elif isinstance(segment, Text) and segment.learn:
                text_at += before
                text_ids += segment.ids
                weights += segment.weights or (1.0,) * len(segment)
            position += len(segment)
    return Targets(
        torch.tensor(image_at, dtype=torch.long),
        torch.tensor(image_ids, dtype=torch.long),
        torch.tensor(text_at, dtype=torch.long),
        torch.tensor(text_ids, dtype=torch.long),
        torch.tensor(weights, dtype=torch.float32),
    )


class NextToken(nn.Module):
    """Janus with its two cross-entropies; the module that optimizers and accelerate see."""

    def __init__(self, janus: Janus) -> None:
        super().__init__()
        self.janus = janus

    def forward(self, rows: list[Row], of_rows: list[float] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """(image loss, text loss): means over learnt tokens, the text one weighted; 0 where none.

        ``of_rows`` is filled with each row's own mean, for a log; NaN for a row that learns nothing.
        """
        wanted = targets(rows)
        hidden = self.janus.hidden(self.janus.embed_rows(rows)).flatten(0, 1)
        image = text = hidden.sum() * 0.0  # keeps every parameter in the graph, as DDP wants
        told = _RowMeans(len(rows), hidden)
        if len(wanted.image_at):
            at, ids = wanted.image_at.to(hidden.device), wanted.image_ids.to(hidden.device)
            logits = self.janus.image_logits(hidden.index_select(0, at)).float()
            image = F.cross_entropy(logits, ids)
            if of_rows is not None:
                told.add(at, F.cross_entropy(logits.detach(), ids, reduction="none"), torch.ones_like(at))
        if len(wanted.text_at):
            logits = self.janus.text_logits(hidden.index_select(0, wanted.text_at.to(hidden.device)))
            loss = F.cross_entropy(logits.float(), wanted.text_ids.to(hidden.device), reduction="none")
            weights = wanted.text_weights.to(hidden.device)
            text = (loss * weights).sum() / weights.sum()
            told.add(wanted.text_at.to(hidden.device), loss.detach(), weights)
        if of_rows is not None:
            of_rows += told.means()
        return image, text


class _RowMeans:
    """Weighted means over the tokens of each of ``rows`` rows that lie end to end in ``hidden``."""

    def __init__(self, rows: int, hidden: torch.Tensor) -> None:
        self.longest = len(hidden) // rows
        self.sums, self.weights = torch.zeros(2, rows, device=hidden.device)

    def add(self, at: torch.Tensor, losses: torch.Tensor, weights: torch.Tensor) -> None:
        """``at`` [N] are the tokens' places."""
        self.sums.index_add_(0, at // self.longest, losses * weights)
        self.weights.index_add_(0, at // self.longest, weights.float())

    def means(self) -> list[float]:
        found: list[float] = (self.sums / self.weights).tolist()
        return found
