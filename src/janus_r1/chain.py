"""What is asked, and the one record that sampling writes and SFT, RL, evaluation and serving read.

A :class:`Task` is a prompt, and for an edit the source image. A :class:`Chain` is a task, its rounds (a draft and the
verdict on it), which round is final, and the settings and seed that reproduce it. On disk it is a folder:
``chain.json``, a PNG a round, and ``source.png``.
"""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from dataclasses import field as record
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image

from janus_r1.errors import UserError, first_line, require
from janus_r1.fields import AtLeast0, Checked, Count, Positive, Range
from janus_r1.files import write_atomically, write_json
from janus_r1.images import data_url, read_image
from janus_r1.reading import field, read_json_object
from janus_r1.segments import Source

FORMAT = 1
EDIT_TEMPERATURE = 0.5  # of drafts that edit: most of such a draft is given, and what chance changes of it is wrong
SOURCE = "source.png"
FAMILY_COLUMNS = ("family", "tag", "task_type", "category")  # the first that a task's row has names its family
MARKED = re.compile(r"(.+?)\s(Yes|No)\b[\s,;.]*(?:and\s+)?", re.DOTALL)  # of a list before the verdict word
AGAIN = "draw it again"  # format repair: what is said after a No where no single change would help


@dataclass(frozen=True)
class Settings(Checked):
    """How chains are sampled. The same settings, prompts and weights reproduce them exactly."""

    rounds: Positive = 3
    """Largest number of drafts (T in the paper)."""
    guidance: Annotated[float, Range(ge=1)] = 1.5
    """Classifier-free guidance weight of drafts; 1 turns it off. Best for the tiny models; the paper uses 5."""
    temperature: AtLeast0 = 1.0
    """Of drafts."""
    top_k: Count = 0
    """Image ids to sample from, 0 for all. The paper uses 4096."""
    top_p: Annotated[float, Range(gt=0, le=1)] = 1.0
    """Probability mass of image ids to sample from."""
    text_temperature: AtLeast0 = 0.0
    """Of the reason; the verdict word too. 0 takes the likeliest; the paper samples, at 1."""
    text_top_k: Count = 50
    """Text tokens to sample from, 0 for all."""
    max_reason_tokens: Positive = 80
    """Longest verdict."""
    history: Literal["full", "last"] = "full"
    """Earlier rounds kept in context: all of them (paper) or only the last (released checkpoint)."""
    final: Literal["last", "best"] = "last"
    """Final round: the last drawn, or the best by its word, the marks of its list (if it has one) and p_yes."""
    early_stop: bool = True
    """Stop a chain at its first Yes."""
    redraw: Literal["auto", "repair", "again"] = "auto"
    """Format repair, after a No: mend the draft as the model says, or draw the task anew where it says so (auto);
    always mend, as long as it says how; always draw anew."""
    repair_from: Literal["last", "best"] = "last"
    """Format repair: the draft that is mended, the last one or the best so far, by its word and its marks."""
    repair_most: Positive = 5
    """Format repair, redraw auto: a draft with more marks No than this is drawn anew. Few faults are soon mended; of
    many a new draft is likelier to be rid."""
    repair_temperature: AtLeast0 = EDIT_TEMPERATURE
    """Format repair: of drafts that mend another."""
    max_list_tokens: Positive = 160
    """Format repair: of the list before the verdict word."""
    seed: int = 0
    """The same seed draws the same chains."""

    @classmethod
    def among(cls, values: Mapping[str, Any]) -> Settings:
        """From command-line options, a recipe or a file: what they say of other things is passed over."""
        return cls(**{known.name: values[known.name] for known in fields(cls) if known.name in values})


@dataclass(frozen=True, eq=False)
class Task:
    """What is asked: a prompt, and for an edit the source image. One type from the command line to the loss.

    Raises:
        UserError: for a source that is no image.
    """

    prompt: str
    """For an edit: the instruction."""
    source: np.ndarray | None = None
    """uint8 [H, W, 3] of any size; None for a picture to draw."""
    columns: Mapping[str, Any] = dataclasses.field(default_factory=dict, kw_only=True)
    """What else the task's row says, for rewards that want it."""

    def __post_init__(self) -> None:
        if self.source is not None:
            check_pixels(self.source)

    @property
    def kind(self) -> str:
        """What its row calls its family, for the log: GenEval's tag and the like; empty where it says nothing."""
        named = (self.columns.get(name) for name in FAMILY_COLUMNS)
        return next((value for value in named if isinstance(value, str) and value), "")


def check_pixels(image: np.ndarray) -> None:
    """Raises UserError unless ``image`` is uint8 [H, W, 3]."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise UserError(f"images are uint8 [H, W, 3], not {image.dtype} {list(image.shape)}: convert them first")


@dataclass(frozen=True)
class Verdict:
    """``Yes``/``No`` with a reason. ``p_yes`` = P(Yes) / (P(Yes) + P(No)) at the first answer token."""

    accepted: bool
    text: str
    p_yes: float
    ids: tuple[int, ...] = record(default=(), repr=False)
    """Sampled tokens, the end-of-sequence token included when it was sampled."""
    logprobs: tuple[float, ...] = record(default=(), repr=False)
    """Of ``ids`` under the distribution they were sampled from; the word's is over {Yes, No}."""
    listing: str = ""
    """Format repair: what the model said that it sees, before the word."""
    list_ids: tuple[int, ...] = record(default=(), repr=False)
    list_logprobs: tuple[float, ...] = record(default=(), repr=False)

    @property
    def tokens(self) -> int:
        """Tokens sampled: the list's, the word and the reason."""
        return len(self.list_ids) + len(self.ids)

    @property
    def marks(self) -> list[tuple[str, bool | None]]:
        """Format repair: the list's parts, each with its mark; None for what has none.

        "a red ring Yes, two stars No" -> ("a red ring", True), ("two stars", False).
        """
        found = [(match[1].strip(" ,;."), match[2] == "Yes") for match in MARKED.finditer(self.listing)]
        rest = MARKED.sub("", self.listing).strip(" ,;.\n")
        return [*((text, mark) for text, mark in found if text), *([(rest, None)] if rest else [])]

    @property
    def faults(self) -> int:
        """Format repair: how many of the marks say No."""
        return sum(mark is False for _, mark in self.marks)

    @property
    def instruction(self) -> str:
        """Format repair: what is to be changed; empty after a Yes."""
        return "" if self.accepted else self.reason

    @property
    def reason(self) -> str:
        """What is said after the word: "No, the ring is red." -> "the ring is red"."""
        words = " ".join(self.text.split())
        for word in ("Yes", "No"):
            if words.startswith(word):
                words = words[len(word) :]
                break
        return words.lstrip(" ,.:;-").rstrip(" .")


@dataclass(frozen=True)
class Round:
    """One draft and the verdict on it."""

    ids: tuple[int, ...] = record(repr=False)
    pixels: np.ndarray = record(repr=False)
    """uint8 [H, W, 3]."""
    verdict: Verdict
    logprobs: tuple[float, ...] = record(default=(), repr=False)
    """Of ``ids`` under the guided distribution they were sampled from."""
    repairs: int | None = None
    """Format repair: the round whose draft this one mends; None for one that was drawn from the task alone."""

    @property
    def image(self) -> Image.Image:
        """The draft as a PIL image."""
        return Image.fromarray(self.pixels)


def final_round(rounds: Sequence[Round], settings: Settings) -> int:
    """Which of ``rounds`` is final under ``settings``."""
    return best_round(rounds) if settings.final == "best" else len(rounds) - 1


def best_round(rounds: Sequence[Round]) -> int:
    """The round that its verdict speaks best of."""
    return max(range(len(rounds)), key=lambda index: standing(rounds[index].verdict))


def standing(verdict: Verdict) -> float:
    """How well a verdict speaks of its draft: by its word, then the fewest marks No, then the highest P(Yes).

    P(Yes) of different Nos says little once a model is sure of each: how much fails is what its list says.
    """
    return verdict.p_yes - (verdict.faults if verdict.p_yes < 0.5 else 0)


@dataclass(frozen=True, repr=False)
class Chain:
    prompt: str
    """For an edit: the instruction."""
    rounds: tuple[Round, ...]
    final: int
    """Index into ``rounds``."""
    settings: Settings
    row: int = 0
    """Position in its batch of prompts x samples; with ``settings.seed`` it fixes the random numbers."""
    source: Source | None = None
    """Of an edit."""

    @property
    def task(self) -> Task:
        """What was asked; the source at the model's size."""
        return Task(self.prompt, self.source.pixels if self.source else None)

    def final_within(self, limit: int) -> int:
        """The final round had there been at most ``limit``: earlier rounds do not depend on later ones."""
        return final_round(self.rounds[:limit], self.settings)

    def __repr__(self) -> str:
        drafts = f"{len(self.rounds)} draft{'s' if len(self.rounds) > 1 else ''}"
        said = f"{'Yes' if self.accepted else 'No'} {self.rounds[self.final].verdict.p_yes:.2f}"
        return f"Chain({self.prompt!r}: {drafts}, final {self.final + 1}, {said})"

    def _repr_html_(self) -> str:
        """How notebooks show it: source and drafts with their verdicts."""
        return chain_html(self)

    @property
    def pixels(self) -> np.ndarray:
        """The final draft, uint8 [H, W, 3]."""
        return self.rounds[self.final].pixels

    @property
    def image(self) -> Image.Image:
        """The final draft as a PIL image."""
        return self.rounds[self.final].image

    @property
    def accepted(self) -> bool:
        """Whether the model said Yes to its final draft."""
        return self.rounds[self.final].verdict.accepted

    @property
    def tokens(self) -> int:
        """Tokens sampled over all rounds: image ids and verdict text."""
        return sum(len(r.ids) + r.verdict.tokens for r in self.rounds)

    def save(self, folder: str | Path, also: Callable[[Path], None] | None = None) -> None:
        """Write ``chain.json`` and ``round_N.png``; the folder appears whole or not at all.

        ``also`` may write further files (a contact sheet) into the folder before it appears.
        """

        def write(temporary: Path) -> None:
            temporary.mkdir()
            for index, item in enumerate(self.rounds):
                Image.fromarray(item.pixels).save(temporary / f"round_{index + 1}.png")
            if self.source:
                Image.fromarray(self.source.pixels).save(temporary / SOURCE)
            write_json(temporary / "chain.json", self.as_dict())
            if also:
                also(temporary)

        write_atomically(Path(folder), write)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, without pixels."""
        rounds = [
            {
                "image": f"round_{i + 1}.png",
                "ids": r.ids,
                "logprobs": r.logprobs,
                "verdict": asdict(r.verdict),
                "repairs": r.repairs,
            }
            for i, r in enumerate(self.rounds)
        ]
        edited = {"source": {"image": SOURCE, "ids": self.source.ids}} if self.source else {}
        return {
            "format": FORMAT,
            "prompt": self.prompt,
            **edited,
            "final": self.final,
            "row": self.row,
            "settings": asdict(self.settings),
            "rounds": rounds,
        }


def load_chain(folder: str | Path) -> Chain:
    """Read a chain that :meth:`Chain.save` wrote.

    Raises:
        UserError: if a file is missing or broken, or was written by a newer format.
    """
    folder = Path(folder)
    record = read_json_object(folder / "chain.json")
    if record.get("format") != FORMAT:
        raise UserError(f"{folder} holds a chain of format {record.get('format')!r}; this version reads {FORMAT}")
    try:
        settings = Settings.among(record["settings"])
        rounds = tuple(_load_round(folder, item) for item in record["rounds"])
        source = Source(_ids(record["source"]), _pixels(folder, record["source"])) if "source" in record else None
        final, row = (field(record, key, int, "it") for key in ("final", "row"))
        require(0 <= final < len(rounds), f"its final round is {final} of {len(rounds)}")
        return Chain(field(record, "prompt", str, "it"), rounds, final, settings, row, source)
    except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder} does not hold a whole chain: {first_line(error)}") from None


def _load_round(folder: Path, item: dict[str, Any]) -> Round:
    said = dict(item["verdict"])
    for key, kind in (("ids", int), ("logprobs", float), ("list_ids", int), ("list_logprobs", float)):
        said[key] = tuple(map(kind, said.get(key, ())))
    verdict = Verdict(**said)
    texts = isinstance(verdict.text, str) and isinstance(verdict.listing, str)
    require(isinstance(verdict.accepted, bool) and texts and 0 <= verdict.p_yes <= 1, "a verdict that is none")
    mended = item.get("repairs")
    require(mended is None or isinstance(mended, int), "a repair of no round")
    return Round(_ids(item), _pixels(folder, item), verdict, tuple(map(float, item["logprobs"])), mended)


def _ids(item: dict[str, Any]) -> tuple[int, ...]:
    return tuple(map(int, item["ids"]))


def _pixels(folder: Path, item: dict[str, Any]) -> np.ndarray:
    name = field(item, "image", str, "a round")
    require(Path(name).name == name, f"the image {name!r} lies outside the folder")
    return read_image(folder / name)


# ------------------------------------------------------------------------------------- in a notebook

SIDE = 192  # pixels of a shown picture
YES, NO, MUTED = "#16804a", "#c22f46", "#6a7483"


def chain_html(chain: Chain) -> str:
    """A chain as HTML that needs nothing else: pictures are inside it, and texts are escaped."""
    cells = []
    if chain.source is not None:
        cells.append(_cell(chain.source.pixels, "source", "", MUTED))
    for number, drawn in enumerate(chain.rounds):
        verdict = drawn.verdict
        final = ", final" if number == chain.final else ""
        title = f"draft {number + 1}{final}: {'Yes' if verdict.accepted else 'No'} {verdict.p_yes:.2f}"
        cells.append(_cell(drawn.pixels, title, verdict.text, YES if verdict.accepted else NO))
    row = f"<div style='display:flex;flex-wrap:wrap;gap:12px'>{''.join(cells)}</div>"
    return f"<div><p><b>{html.escape(chain.prompt)}</b></p>{row}</div>"


def _cell(pixels: np.ndarray, title: str, text: str, colour: str) -> str:
    said = f"<div style='font-size:12px;color:{MUTED}'>{html.escape(text)}</div>" if text else ""
    picture = f"<img src='{data_url(pixels)}' width='{SIDE}' style='image-rendering:pixelated'>"
    heading = f"<div style='font-size:12px;color:{colour}'>{html.escape(title)}</div>"
    return f"<div style='width:{SIDE}px'>{picture}{heading}{said}</div>"
