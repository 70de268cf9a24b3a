"""Candidates, which are scored images of prompts, and the rows of SFT that are made of them (paper section 3.1).

On disk a folder of parts; a part is ``candidates.jsonl`` (one candidate a line) and ``images.npy``
(uint8 [n, H, W, 3], the same order). Parts are written whole or not at all, so building resumes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from janus_r1.data.rows import (
    DRAW_THRESHOLD,
    NO_THRESHOLD,
    YES_THRESHOLD,
    Begun,
    RowMaker,
    Rows,
    Wanted,
)
from janus_r1.errors import UserError, first_line, require
from janus_r1.files import write_atomically
from janus_r1.layout import Layout, clean
from janus_r1.reading import field, open_regular, read_jsonl
from janus_r1.segments import Drawn, Row, Seen

MAX_PART = 2**32  # bytes of the texts of a part


@dataclass(frozen=True)
class Candidate:
    """An image of a prompt with its score. ``reason`` begins with Yes or No; empty, the image is only drawn."""

    prompt_id: int
    prompt: str
    ids: tuple[int, ...]
    """The image as VQ ids."""
    p_yes: float
    """Consistency with the prompt in [0, 1] (S in the paper)."""
    reason: str
    source: str
    """Where the image comes from: ``draft@`` a temperature, ``rendering``, ``near miss``, ``round`` of a rollout."""

    @property
    def is_draft(self) -> bool:
        """Whether ``data build`` let the model draw it."""
        return self.source.startswith("draft")


def write_part(folder: Path, candidates: list[Candidate], images: np.ndarray) -> None:
    """Write one part; it appears whole or not at all."""
    if len(candidates) != len(images):
        raise ValueError(f"{len(candidates)} candidates but {len(images)} images")

    def write(temporary: Path) -> None:
        temporary.mkdir()
        lines = [json.dumps(asdict(candidate), ensure_ascii=False) + "\n" for candidate in candidates]
        (temporary / "candidates.jsonl").write_text("".join(lines), encoding="utf-8")
        np.save(temporary / "images.npy", images)

    write_atomically(folder, write)


class CandidateSet:
    """All candidates of one or several folders; images stay on disk until they are read.

    Raises:
        UserError: for a folder that holds none, or a part that is damaged.
    """

    def __init__(self, *folders: str | Path) -> None:
        self.parts: list[tuple[Path, int]] = []
        """Every part and how many candidates it holds."""
        self.candidates: list[Candidate] = []
        self._images: list[np.ndarray] = []
        self._where: list[tuple[int, int]] = []
        for folder in folders:
            own = sorted(Path(folder).glob("part_*"))
            if not own:
                raise UserError(f"no candidates in {folder}: run janus-r1 data build first, or set candidates")
            for part in own:
                self._read(part)

    def _read(self, part: Path) -> None:
        try:
            images = _images(part / "images.npy")
            candidates = [_candidate(*line) for line in read_jsonl(part / "candidates.jsonl", MAX_PART)]
            require(len(images) == len(candidates), f"it has {len(candidates)} candidates but {len(images)} images")
        except UserError as error:
            raise UserError(f"{part} is not a whole part of candidates: {error}; delete it and build again") from None
        self._where += [(len(self._images), i) for i in range(len(candidates))]
        self._images.append(images)
        self.candidates += candidates
        self.parts.append((part, len(candidates)))

    def check(self, image_tokens: int, codes: int, size: int) -> None:
        """Whether a model of so many ids an image, codes of each and pixels a side can be trained on all of them.

        Raises:
            UserError: that names the part which is another model's.
        """
        first = 0
        for (part, count), images in zip(self.parts, self._images, strict=True):
            own = self.candidates[first : first + count]
            for number, candidate in enumerate(own, 1):
                if len(candidate.ids) != image_tokens or max(candidate.ids) >= codes:
                    told = f"{len(candidate.ids)} ids up to {max(candidate.ids, default=0)}"
                    raise UserError(
                        f"{part}, candidate {number} has {told}, but the model's images have {image_tokens} below "
                        f"{codes}: build candidates with this model's image tokenizer"
                    )
            if images.shape[1:3] != (size, size):
                sides = " x ".join(map(str, images.shape[1:3]))
                raise UserError(f"the images of {part} are {sides}, but the model's are {size} x {size}: build again")
            first += count

    def __len__(self) -> int:
        return len(self.candidates)

    def __getitem__(self, index: int) -> Candidate:
        return self.candidates[index]

    def __iter__(self) -> Iterator[Candidate]:
        return iter(self.candidates)

    def image(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3]."""
        part, position = self._where[index]
        return np.asarray(self._images[part][position])


def _images(path: Path) -> np.ndarray:
    """uint8 [n, H, W, 3], mapped."""
    open_regular(path).close()  # a pipe or a device is never waited for
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path.name} is no array of images: {first_line(error)}") from None
    fits = isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4
    require(fits and images.shape[-1] == 3 and 0 not in images.shape[1:], f"{path.name} must hold uint8 [n, H, W, 3]")
    return images


def _candidate(place: str, record: Any) -> Candidate:
    ids = field(record, "ids", list, place)
    require(all(type(one) is int and one >= 0 for one in ids), f"{place}: ids must be whole numbers from 0")
    p_yes = float(field(record, "p_yes", float, place))
    require(0.0 <= p_yes <= 1.0, f"{place}: p_yes {p_yes} is not in [0, 1]")
    prompt, reason, source = (field(record, key, str, place) for key in ("prompt", "reason", "source"))
    clean(prompt, f"prompt of {place}")
    if reason.strip():
        clean(reason, f"reason of {place}")
    return Candidate(field(record, "prompt_id", int, place), prompt, tuple(ids), p_yes, reason, source)


# ---------------------------------------------------------------------------------------------------------- rows


class Pools:
    """Where the images of a set lie, by the prompt's text: ``good`` to draw, ``yes`` to accept, ``no`` to reject."""

    def __init__(self, candidates: CandidateSet) -> None:
        self.candidates = candidates
        self.good = self._by_prompt(lambda c: c.p_yes >= DRAW_THRESHOLD)
        self.yes = self._by_prompt(lambda c: c.p_yes >= YES_THRESHOLD and bool(c.reason))
        self.no = self._by_prompt(lambda c: c.p_yes < NO_THRESHOLD and bool(c.reason))

    def _by_prompt(self, wanted: Callable[[Candidate], bool]) -> dict[str, list[int]]:
        chosen: dict[str, list[int]] = {}
        for index, candidate in enumerate(self.candidates):
            if wanted(candidate):
                chosen.setdefault(candidate.prompt, []).append(index)
        return chosen

    def drafts(self, positive: bool) -> list[int]:
        """What a model drew of the images to accept, or to reject."""
        pool = self.yes if positive else self.no
        return [index for own in pool.values() for index in own if self.candidates[index].is_draft]

    def wrong(self, prompt: str, count: int, rng: random.Random, but: int | None = None) -> list[int]:
        """Up to ``count`` different wrong images of a prompt."""
        pool = [index for index in self.no.get(prompt, []) if index != but]
        return rng.sample(pool, min(count, len(pool)))


class CandidateRows(RowMaker):
    """Makes the shares ``draw``, ``judge`` and ``redraw``; everything random comes from the generator passed in.

    A task picks a prompt, then an image of it. With ``own_drafts`` the judge sees those sets' drafts alone, every set
    as often, and of a set any draft as likely as another: what is hard to draw is then as often wrong as when the model
    judges itself. ``wanted`` are the shares that must be possible.

    Raises:
        UserError: for candidates of which a wanted share cannot be made.
    """

    def __init__(
        self,
        candidates: CandidateSet,
        layout: Layout,
        word_weight: float | None,
        own_drafts: Sequence[CandidateSet] = (),
        wanted: Sequence[str] = ("draw", "judge", "redraw"),
    ) -> None:
        self.layout, self.word_weight = layout, word_weight
        self.drawn = Pools(candidates)
        self.judged = [Pools(own) for own in own_drafts]
        self.drafts = [{True: pools.drafts(True), False: pools.drafts(False)} for pools in self.judged]
        self.redrawable = sorted(set(self.drawn.good) & set(self.drawn.no))
        if "draw" in wanted and not self.drawn.good:
            raise UserError("the candidates hold no right image: nothing to draw")
        if "redraw" in wanted and not self.redrawable:
            raise UserError("the candidates hold no prompt with both a right and a wrong image: nothing to redraw")
        if "judge" not in wanted:
            return
        if not all(all(drafts.values()) for drafts in self.drafts):
            raise UserError("own_drafts holds no right or no wrong draft: build more, or leave own_drafts empty")
        if not all(pools.yes for pools in self.judged or [self.drawn]):
            raise UserError("no right image of the candidates has a reason why it is right: nothing to say Yes to")
        if not all(pools.no for pools in self.judged or [self.drawn]):
            raise UserError("no wrong image of the candidates has a reason why it is wrong: nothing to say No to")

    def begin(self, wanted: Wanted) -> Begun:
        rng, dropout = wanted.rng, wanted.dropout
        images = [self.draw(rng, dropout) for _ in range(wanted.count("draw"))]
        images += [self.redraw(rng, wanted.redraw_rounds, dropout) for _ in range(wanted.count("redraw"))]
        verdicts = [self.judge(rng, wanted.judge_rounds, i % 2 == 0) for i in range(wanted.count("judge"))]
        return Begun(Rows(images, verdicts, []))

    # ------------------------------------------------------------------------------------- tasks

    def draw(self, rng: random.Random, dropout: float) -> Row:
        """Task I: a caption and an image of it."""
        candidate = self.drawn.candidates[_pick(self.drawn.good, rng)]
        return self.layout.draw(candidate.prompt, candidate.ids, rng.random() < dropout)

    def judge(self, rng: random.Random, wrong_rounds: int, positive: bool) -> Row:
        """Task II: after ``wrong_rounds`` rejected drafts, the verdict on one more."""
        if self.judged:
            chosen = rng.randrange(len(self.judged))
            pools, target = self.judged[chosen], rng.choice(self.drafts[chosen][positive])
        else:
            pools = self.drawn
            target = _pick(pools.yes if positive else pools.no, rng)
        judged = pools.candidates[target]
        wrong = pools.wrong(judged.prompt, wrong_rounds, rng, but=target)
        earlier = [self._seen(pools.candidates, index) for index in wrong]
        seen, reason = self._seen(pools.candidates, target)
        return self.layout.judge(judged.prompt, earlier, seen, reason, self.word_weight)

    def redraw(self, rng: random.Random, wrong_rounds: int, dropout: float) -> Row:
        """Task III: from rejected drafts and their reasons to an image that is right."""
        pools = self.drawn
        prompt = rng.choice(self.redrawable)
        target = pools.candidates[rng.choice(pools.good[prompt])]
        rejected = [pools.candidates[i] for i in pools.wrong(prompt, wrong_rounds, rng)]
        earlier = [(Drawn(candidate.ids), candidate.reason) for candidate in rejected]
        return self.layout.redraw(prompt, earlier, target.ids, rng.random() < dropout)

    def _seen(self, candidates: CandidateSet, index: int) -> tuple[Seen, str]:
        return Seen(candidates.image(index), self.layout.image_tokens), candidates[index].reason


def _pick(pool: dict[str, list[int]], rng: random.Random) -> int:
    return rng.choice(pool[rng.choice(list(pool))])
