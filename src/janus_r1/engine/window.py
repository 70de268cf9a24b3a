"""Drawing several ids a forward, and getting the image that one by one would give.

An id is a function of its logits and of the one random number of its place. So a forward takes the last id that stands
and guesses for the places behind it, and samples every place under that place's own number. The first of them is right,
since what it follows from stands; each later one is right if the guess before it came out as guessed. What was sampled
behind the first wrong guess is the next guess: it knows more than the old one, and its random numbers are the same.

A place that no forward has reached is guessed to be as in ``guess`` (the source of an edit, the draft that is repaired)
or, without it, as the id above it. Rows advance at their own pace; those that are done leave, once half of them are
(of few rows each at once), and the others get wider windows.

Rounding: on a CPU a product's rows come out the same however many there are, from four on, and so do the queries of
an attention that reads a multiple of 64 positions (``cache.FEWEST``, ``cache.READ``; a test holds both). Windows are
padded to that, so in float32 all widths give the same bits. Drawing one by one without this module rounds otherwise by
the last bit, which is very rarely enough to change an id.

Shapes: B rows of a stream, R cached rows (2 B under guidance), S ids an image, W width, D hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from janus_r1.engine.cache import FEWEST, Cache, Placement, Stream
from janus_r1.engine.network import Network
from janus_r1.engine.sampling import Sampling

WIDEST = 16  # places that a forward may draw at once; a cache has room for so many behind an image
USUAL, NARROWEST = 8, 3  # a row alone gets so many, and with fewer nothing is gained
MENDING = 12  # a row alone gets so many where there is a guess of the whole image
FEW = 4  # of no more rows each leaves as soon as it is done
POSITIONS = 16  # in all rows together: more cost a CPU more than they save; twice as many where there is a guess


def width_for(rows: int, guessed: bool, like: torch.Tensor, most: int = USUAL) -> int:
    """The width that pays for so many rows of a model whose weights are ``like`` this; 1: one at a time.

    A row alone gets ``most``.

    Measured on a CPU; on a GPU 1 until it is measured there. 1 also in 8 and 16 bits, where another number of rows
    rounds otherwise often enough to draw another image.
    """
    if like.device.type != "cpu" or like.dtype != torch.float32:
        return 1
    width = min(most, POSITIONS * (2 if guessed else 1) // rows)
    return width if width >= NARROWEST else 1


@dataclass
class Image:
    """Ids that stand and guesses of the others, with a margin that windows behind the last place reach into."""

    ids_BS: torch.Tensor
    logprobs_BS: torch.Tensor
    uniform_BS: torch.Tensor
    reached_B: torch.Tensor
    """Places that have a guess, or an id that stands."""
    stand: list[int]
    """Ids of every row that are what one by one would give."""
    places: int
    """S, without the margin."""

    @classmethod
    def blank(cls, uniform: torch.Tensor, guess: torch.Tensor | None) -> Image:
        rows, places = uniform.shape
        ids = torch.zeros(rows, places + WIDEST + 1, dtype=torch.long, device=uniform.device)
        numbers = uniform.new_zeros(ids.shape)
        numbers[:, :places] = uniform
        reached = torch.zeros(rows, dtype=torch.long, device=uniform.device)
        if guess is not None:
            ids[:, :places] = guess
            reached += places
        return cls(ids, torch.zeros_like(numbers), numbers, reached, [0] * rows, places)

    @property
    def waiting(self) -> list[int]:
        """Rows that are not done."""
        return [row for row, stand in enumerate(self.stand) if stand < self.places]

    def rows(self, rows: list[int]) -> Image:
        ids, logprobs, uniform = self.ids_BS[rows], self.logprobs_BS[rows], self.uniform_BS[rows]
        return Image(ids, logprobs, uniform, self.reached_B[rows], [self.stand[row] for row in rows], self.places)

    def put(self, part: Image, rows: list[int]) -> None:
        """Take back what :meth:`rows` gave away, finished."""
        self.ids_BS[rows], self.logprobs_BS[rows] = part.ids_BS, part.logprobs_BS
        for row in rows:
            self.stand[row] = self.places

    def window(self, width: int) -> torch.Tensor:
        """Places [B, W] whose ids are fed: the last that stands, and the guesses behind it."""
        first = torch.tensor(self.stand, device=self.ids_BS.device).unsqueeze(1) - 1
        places = first + torch.arange(width, device=first.device)
        fresh = places >= self.reached_B.unsqueeze(1)
        above = self.ids_BS.gather(1, (places - round(self.places**0.5)).clamp_min(0))
        self.ids_BS.scatter_(1, places, torch.where(fresh, above, self.ids_BS.gather(1, places)))
        return places

    def take(self, targets_BW: torch.Tensor, ids_BW: torch.Tensor, logprobs_BW: torch.Tensor) -> None:
        """Write down what was sampled for these places; as much of it stands as follows from right guesses."""
        guessed = self.ids_BS.gather(1, targets_BW)[:, :-1] == ids_BW[:, :-1]
        right = 1 + guessed.long().cumprod(1).sum(1)
        self.ids_BS.scatter_(1, targets_BW, ids_BW)
        self.logprobs_BS.scatter_(1, targets_BW, logprobs_BW)
        self.reached_B = torch.maximum(self.reached_B, targets_BW[:, -1] + 1)
        self.stand = [min(self.places, old + new) for old, new in zip(self.stand, right.tolist(), strict=True)]


def draw(
    network: Network, stream: Stream, uniform: torch.Tensor, how: Sampling, width: int, guess: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Ids [B, S], their log-probs, and how many forwards it took; one row gets ``WIDEST`` at most.

    The cache must have room for S + ``WIDEST`` tokens more.
    """
    halves = 2 if stream.guided else 1
    starts = [length - 1 for length in stream.cache.lengths]  # where the id before the image's first would be
    image = Image.blank(uniform, guess)
    ids, logprobs = how.choose(network.image_logits(stream.last), stream.guided, uniform[:, 0])
    image.ids_BS[:, 0], image.logprobs_BS[:, 0] = ids, logprobs
    image.reached_B.clamp_min_(1)
    image.stand = [1] * len(ids)
    forwards = _finish(network, stream.cache, image, starts, halves, how, width)
    places = image.places
    return image.ids_BS[:, :places].clone(), image.logprobs_BS[:, :places].clone(), forwards


def _finish(
    network: Network, cache: Cache, image: Image, starts: list[int], halves: int, how: Sampling, width: int
) -> int:
    """Draw until all rows are done; the forwards it took. Cached row r holds the image from ``starts[r] + 1`` on."""
    rows, forwards = len(image.stand), 0
    least = -(-FEWEST // (rows * halves))
    while waiting := image.waiting:
        if 2 * len(waiting) <= rows or (len(waiting) < rows <= FEW):
            both = [row + half * rows for half in range(halves) for row in waiting]
            part, drawn = cache.copy(both), image.rows(waiting)
            wider = min(WIDEST, width * rows // len(waiting))
            forwards += _finish(network, part, drawn, [starts[row] for row in both], halves, how, wider)
            cache.put(part, both)
            image.put(drawn, waiting)
            break
        fed = image.window(max(width, least))
        cache.lengths = [start + stand for start, stand in zip(starts, image.stand * halves, strict=True)]
        x_RWD = network.drawn_table[image.ids_BS.gather(1, fed)].repeat(halves, 1, 1)
        hidden = network.forward(cache, x_RWD, Placement.steady(cache, fed.shape[1], x_RWD))
        logits = network.image_logits(hidden).flatten(0, 1)
        ids, logprobs = how.choose(logits, halves == 2, image.uniform_BS.gather(1, fed + 1).flatten())
        image.take(fed + 1, ids.view_as(fed), logprobs.view_as(fed))
        forwards += 1
    cache.lengths = [start + image.places for start in starts]
    return forwards
