"""SFT rows of a store: whatever its images carry, read when a step wants it.

Right images teach drawing, scored ones judging, wrong and right ones of one prompt redrawing, edits editing. In the
format repair judging is a look, whose list are the image's claims with their marks, and redrawing an edit of the wrong
image by the reason of its No, which should be an instruction, to the image that mends it or else the right one of its
prompt that looks most like it. In memory is an index of some 50 bytes an image; texts
and pictures are read by a worker process, VQ ids are mapped from disk.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count
from pathlib import Path

import numpy as np

from janus_r1.chain import Task, Verdict
from janus_r1.data.codes import Codes, Features, fitted
from janus_r1.data.rows import (
    DRAW_THRESHOLD,
    NO_THRESHOLD,
    YES_THRESHOLD,
    Begun,
    RowMaker,
    Rows,
    Told,
    Wanted,
)
from janus_r1.data.store import Store
from janus_r1.errors import UserError
from janus_r1.model.janus import Janus
from janus_r1.segments import Drawn, Row, Seen, Source, unseen

SHARES = ("draw", "judge", "redraw", "edit")
NEEDS = {
    "draw": "right images (without a score, or with one of at least 0.8)",
    "judge": "images scored at least 0.7 and others below 0.5",
    "redraw": "prompts with a right image and one scored below 0.5",
    "edit": "images with a source image",
}


class Pool:
    """Rows by the prompt that they belong to: every prompt is as likely as another, and of it every row."""

    def __init__(self, rows: np.ndarray, prompts: np.ndarray) -> None:
        """``rows`` [n] are row numbers, ``prompts`` [n] their prompts' digests."""
        order = np.argsort(prompts, kind="stable")
        self.rows = rows[order]
        self.prompts, self.firsts = np.unique(prompts[order], return_index=True)
        self.ends = np.append(self.firsts[1:], len(rows))

    def __len__(self) -> int:
        return len(self.prompts)

    def of(self, prompt: int) -> np.ndarray:
        """Rows of a prompt, perhaps none."""
        place = int(np.searchsorted(self.prompts, prompt))
        if place == len(self.prompts) or self.prompts[place] != prompt:
            return self.rows[:0]
        return self.rows[self.firsts[place] : self.ends[place]]

    def pick(self, rng: random.Random) -> int:
        own = self.of(self.prompts[rng.randrange(len(self.prompts))])
        return int(own[rng.randrange(len(own))])


class Index:
    """Which rows of a store teach what."""

    def __init__(self, store: Store) -> None:
        prompts, scores, words, edits, ids, mends = _columns(store)
        rows = np.arange(len(store))
        # One without a score is an example, and counts as right.
        right = np.isnan(scores) | (scores >= DRAW_THRESHOLD)
        yes = _reasoned(~edits & (scores >= YES_THRESHOLD) & (words >= 0), words)
        no = _reasoned(~edits & (scores < NO_THRESHOLD) & (words <= 0), words)
        self.prompts = prompts
        self.good, self.yes, self.no, self.edits = (
            Pool(rows[chosen], prompts[chosen]) for chosen in (right & ~edits, yes, no, right & edits)
        )
        self.redrawable = np.intersect1d(self.good.prompts, self.no.prompts)
        self.mends = _mended(ids, mends)

    def carries(self) -> dict[str, bool]:
        """Which shares the data can serve."""
        judge = bool(len(self.yes)) and bool(len(self.no))
        counts = {"draw": len(self.good), "redraw": len(self.redrawable), "edit": len(self.edits)}
        return {"judge": judge, **{name: bool(count) for name, count in counts.items()}}


def _reasoned(chosen: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Those with a reason; where none has one all, whose verdict is the word alone."""
    with_reason = chosen & (words != 0)
    return with_reason if with_reason.any() else chosen


def _columns(store: Store) -> tuple[np.ndarray, ...]:
    """Prompt digests, scores (NaN: none), words of reasons (1 Yes, -1 No, 0 none), edits, and digests of ids."""
    parts: list[list[np.ndarray]] = [[] for _ in range(6)]
    for batch in store.columns(["prompt", "score", "reason", "source_image.path", "id", "repair_of"]):
        rows = batch.to_pydict()
        scores = [np.nan if score is None else score for score in rows["score"]]
        words = [_word(reason) for reason in rows["reason"]]
        edits = [source is not None and source["path"] is not None for source in rows["source_image"]]
        digests = ([_digest(text) for text in rows[name]] for name in ("prompt", "id", "repair_of"))
        prompts, ids, mends = (np.array(values, np.uint64) for values in digests)
        columns: tuple[np.ndarray, ...] = (
            prompts,
            np.array(scores, float),
            np.array(words, np.int8),
            np.array(edits, bool),
            ids,
            mends,
        )
        for part, column in zip(parts, columns, strict=True):
            part.append(column)
    return tuple(np.concatenate(part) for part in parts)


def _digest(text: str) -> int:
    """The same in every process, so that a resumed run picks the same rows; 0 for nothing."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") if text else 0


def _word(reason: str) -> int:
    first = reason.split(maxsplit=1)[0].strip(".,:;!").casefold() if reason else ""
    return {"yes": 1, "no": -1}.get(first, 0)


def _mended(ids: np.ndarray, mends: np.ndarray) -> dict[int, int]:
    """Rows to the rejected rows that they mend."""
    repairs = np.flatnonzero(mends)
    if not len(repairs):
        return {}
    order = np.argsort(ids)
    places = np.searchsorted(ids[order], mends[repairs])
    found = {int(row): int(order[place]) for row, place in zip(repairs, places, strict=True) if place < len(order)}
    return {row: rejected for row, rejected in found.items() if ids[rejected] == mends[row]}


# --------------------------------------------------------------------------------------- the rows


@dataclass(frozen=True)
class Pick:
    """A row to be made: of which images, the last of them the one that is learnt."""

    share: str
    rows: tuple[int, ...]
    dropped: bool = False


@dataclass(frozen=True)
class Read:
    """What is read of an image for a row."""

    prompt: str
    reason: str
    pixels: np.ndarray | None = None
    """As the model sees it; of an edit, its source."""
    listing: str = ""
    """Its claims and whether they hold: "a red ring Yes, two stars No"."""
    family: str = ""
    """Of the prompt, where the data name one."""


class StoreRows(RowMaker):
    """Makes the shares ``draw``, ``judge``, ``redraw`` and ``edit`` of stores; all random follows from a step's seed.

    Raises:
        UserError: for a share that the data cannot serve, naming what is missing.
    """

    def __init__(
        self,
        folders: Sequence[str],
        model: Janus,
        wanted: Sequence[str],
        word_weight: float | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        """``wanted``: the shares that will be asked for. ``part`` is which process this is and how many there are: of
        the rows that are not its own (``train.processes.share``) nothing is read, and they stay empty."""
        self.folders, self.model, self.word_weight, self.part = tuple(folders), model, word_weight, part
        self.store = Store(*folders)
        self.index = Index(self.store)
        carries = self.index.carries()
        for share in wanted:
            if not carries[share]:
                possible = ", ".join(name for name in SHARES if carries[name]) or "none"
                raise UserError(
                    f"{', '.join(folders)} cannot teach {share}, which takes {NEEDS[share]}; it can teach {possible}: "
                    "set shares"
                )
        self.repairs = model.format == "repair"
        self.codes = Codes(self.store, model) if set(wanted) - {"judge"} else None
        self.features = Features(self.store, model) if self.repairs and "redraw" in wanted else None

    def begin(self, wanted: Wanted) -> Begun:
        return Begun(job=partial(read, self.folders, self._own(self.picks(wanted)), self.model.image_size))

    def finish(self, made: list[list[Read]], wanted: Wanted) -> Rows:
        rows, picks = Rows([], [], []), self.picks(wanted)
        for pick, own, parts in zip(picks, self._own(picks), made, strict=True):
            family = parts[-1].family if own else ""
            row = self._row(own, parts) if own else ()
            told = Told(row, (pick.share, *((f"{pick.share}/{family}",) if family else ())))
            (rows.verdicts if pick.share == "judge" else rows.images).append(told)
        return rows

    def _own(self, picks: Sequence[Pick]) -> list[Pick | None]:
        """Those of this process, which has every so-manieth of the images and of the verdicts; None for others."""
        here, processes = self.part
        numbers = {True: count(), False: count()}  # of verdicts, and of images
        return [pick if next(numbers[pick.share == "judge"]) % processes == here else None for pick in picks]

    def picks(self, wanted: Wanted) -> list[Pick]:
        """What a step is made of."""
        rng = random.Random(f"store {wanted.seed}")
        index = self.index
        picks = [
            Pick("draw", (index.good.pick(rng),), rng.random() < wanted.dropout) for _ in range(wanted.count("draw"))
        ]
        for number in range(wanted.count("judge")):
            target = (index.no if number % 2 else index.yes).pick(rng)
            earlier = 0 if self.repairs else wanted.judge_rounds
            picks.append(Pick("judge", (*self._wrong(target, earlier, rng), target)))
        for _ in range(wanted.count("redraw")):
            own = index.good.of(index.redrawable[rng.randrange(len(index.redrawable))])
            target = int(own[rng.randrange(len(own))])
            rounds = 1 if self.repairs else wanted.redraw_rounds
            rejected = self._wrong(target, rounds, rng)
            if target in index.mends:  # the image that it mends stands directly before it
                others = [row for row in rejected if row != index.mends[target]]
                rejected = (*others[: rounds - 1], index.mends[target])
            elif self.features:  # a repair changes what is wrong and no more
                target = self.features.nearest(rejected[0], own.tolist())
            picks.append(Pick("redraw", (*rejected, target), rng.random() < wanted.dropout))
        picks += [
            Pick("edit", (index.edits.pick(rng),), rng.random() < wanted.dropout) for _ in range(wanted.count("edit"))
        ]
        return picks

    def _wrong(self, target: int, count: int, rng: random.Random) -> tuple[int, ...]:
        """Up to ``count`` wrong images of the prompt of ``target``."""
        others = [int(row) for row in self.index.no.of(self.index.prompts[target]) if row != target]
        return tuple(rng.sample(others, min(count, len(others))))

    def _row(self, pick: Pick, parts: list[Read]) -> Row:
        layout, last, codes = self.model.layout, parts[-1], self.codes
        if pick.share == "judge" and self.repairs:
            shown = Seen(_pixels(last), layout.image_tokens)
            return layout.look(last.prompt, shown, last.listing, last.reason)
        if pick.share == "judge":
            seen = [(Seen(_pixels(part), layout.image_tokens), part.reason) for part in parts]
            return layout.judge(last.prompt, seen[:-1], *seen[-1], self.word_weight)
        assert codes is not None  # made for every share but judge
        ids = codes.image(pick.rows[-1])
        if pick.share == "redraw" and self.repairs:
            rejected = unseen(codes.image(pick.rows[0]))
            return layout.draw(instruction_of(parts[0].reason) or last.prompt, ids, pick.dropped, rejected)
        if pick.share == "redraw":
            earlier = [(Drawn(codes.image(row)), part.reason) for row, part in zip(pick.rows, parts[:-1], strict=False)]
            return layout.redraw(last.prompt, earlier, ids, pick.dropped)
        source = Source(codes.source(pick.rows[-1]), _pixels(last)) if pick.share == "edit" else None
        return layout.draw(last.prompt, ids, pick.dropped, source)


def instruction_of(reason: str) -> str:
    """What a No asks for: "No, make the ring red." -> "make the ring red"."""
    return Verdict(False, reason, 0.0).instruction


def _pixels(part: Read) -> np.ndarray:
    assert part.pixels is not None
    return part.pixels


@lru_cache(maxsize=2)
def _opened(folders: tuple[str, ...]) -> Store:
    """Once a process: the store of a worker."""
    return Store(*map(Path, folders))


def read(folders: tuple[str, ...], picks: Sequence[Pick | None], size: int) -> list[list[Read]]:
    """Texts, and pictures where they are looked at, of some picks, nothing of None; what a worker process does."""
    store = _opened(folders)
    return [[_read(store, row, pick.share, size) for row in pick.rows] if pick else [] for pick in picks]


def _read(store: Store, row: int, share: str, size: int) -> Read:
    looked_at = share in ("judge", "edit")
    record = store[row] if looked_at else store.without_images(row)
    reason = record.reason or ("No" if record.score is not None and record.score < NO_THRESHOLD else "Yes")
    picture = record.source_image if share == "edit" else record.image
    pixels = fitted(picture or b"", size, edit=share == "edit") if looked_at else None
    claims = ", ".join(f"{c.text} {'Yes' if c.mark else 'No'}" for c in record.claims if c.mark is not None)
    return Read(record.prompt, reason, pixels, claims, Task(record.prompt, columns=record.extra).kind)
