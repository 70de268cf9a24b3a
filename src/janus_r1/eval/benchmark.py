"""What a benchmark is, and its first step: drawing every prompt into the benchmark's own folder layout.

A drawn folder holds ``run.json``, one folder an *arm*, each in the layout that the benchmark's own scorer reads, and
``chains-*.jsonl`` with the verdicts and costs::

    round_1/ round_2/ ...   the final images, had there been at most so many rounds
    draft_2/ ...            with controls: further drafts that know nothing of each other; the first is round_1's
    copy/ tokenizer/        of edits: what needs no editor, to compare with

An item is done when its chains stand in a chains file, so a run that was killed goes on where it stopped, and several
processes (shards) may share the folder. An item that cannot be asked for is logged with why, and tried the next time.
"""

from __future__ import annotations

import hashlib
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from janus_r1.chain import Chain, Round, Settings, Task
from janus_r1.errors import UserError, require
from janus_r1.eval.protocol import BASELINES, CONTROL_SEED, check_chains
from janus_r1.eval.records import open_records, read_records
from janus_r1.eval.statistics import Bounds, Figure, figure
from janus_r1.fields import Checked, Count, Positive
from janus_r1.files import write_atomically, write_json
from janus_r1.reading import field as read_field
from janus_r1.reading import open_regular, read_json_object

RUN = "run.json"

Sampler = Callable[[list[Task], Settings, int], list[Chain]]
"""(tasks, settings, first row) -> one chain a task; rows decide the random numbers."""

Trivial = Callable[[list[Task]], Sequence[np.ndarray]]
"""An image (uint8 [H, W, 3]) a task that took no drawing: one of :data:`BASELINES`."""


class Measure(NamedTuple):
    """One of a benchmark's several figures: how papers print it, and between which values it lies."""

    title: str
    factor: float
    digits: int
    bounds: Bounds
    less_is_better: bool = False


@dataclass(frozen=True)
class Item:
    """One prompt of a benchmark."""

    id: str
    prompt: str
    group: str
    """The part of the benchmark that it counts towards."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What its scorer must know."""


@dataclass(frozen=True)
class Shot:
    """One image to score: a file of an arm, or a tile of one."""

    item: Item
    index: int
    file: str
    """Relative to the arm's folder, with slashes."""
    tile: int | None = None


@dataclass(frozen=True)
class Survey:
    """What a folder holds: images to score, and a line for everything that is not as it should be."""

    shots: list[Shot]
    complaints: list[str]


class Benchmark(ABC):
    """Prompts, a folder layout, and how values of images become a headline."""

    name: str
    title: str
    images: int
    """Of a prompt, by the protocol."""
    binary: bool
    """Whether an image is right or wrong, rather than right in part."""
    any_number = True
    """Whether its layout takes another number of images a prompt."""
    scale = 1.0
    """What the headline is multiplied by where it is shown."""
    measures: Mapping[str, Measure] = {}
    """Of a benchmark that has several figures and no headline."""
    _items: list[Item]

    def items(self) -> list[Item]:
        """All prompts, in the published order."""
        return self._items

    @abstractmethod
    def write(self, folder: Path, item: Item, images: Sequence[np.ndarray]) -> None:
        """Put an item's images (uint8 [H, W, 3]) into an arm's folder."""

    @abstractmethod
    def survey(self, folder: Path) -> Survey:
        """The images in a folder in this layout, whoever drew them.

        Raises:
            UserError: if the folder does not hold this layout at all.
        """

    def task(self, item: Item, text: str) -> Task:
        """What the model is asked for, ``text`` being the item's prompt or what it was rewritten to.

        Raises:
            UserError: if the item's own files are broken.
        """
        return Task(text)

    def pixels(self, folder: Path, shot: Shot, image: np.ndarray) -> np.ndarray:
        """What is scored of a file's ``image``."""
        return image

    def units(self, rows: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values, prompts and groups [N] of score rows: what the figures are means of. Here: a value a row."""
        values = np.array([row["value"] for row in rows], dtype=np.float64)
        return values, np.array([row["id"] for row in rows]), np.array([row["group"] for row in rows])

    def overall(self, values: np.ndarray, prompts: np.ndarray, groups: np.ndarray) -> Figure:
        """The headline in [0, 1] with its interval over prompts; all arrays [N]. Here: the mean over images."""
        return figure(values, prompts)

    def extras(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Further figures of score rows that the benchmark's own report prints, by name."""
        return {}


# ------------------------------------------------------------------------------------------ draw


@dataclass(frozen=True)
class DrawOptions(Checked):
    """How to draw. Of ``settings``, ``early_stop`` is set by the benchmark."""

    settings: Settings = field(default_factory=Settings)
    samples: Positive | None = None
    """Images a prompt; the protocol's number by default."""
    controls: bool = False
    """Also draw rounds - 1 independent drafts a chain, for best-of-N and blind redrawing at equal cost."""
    shared_noise: bool = False
    """The same random numbers for every prompt, as where the seed is set anew for each."""
    shard: tuple[Count, Positive] = (0, 1)
    """This process's number, from 0, and how many there are."""
    limit: Positive | None = None
    """Only the first so many prompts."""
    batch: Positive = 64
    rewritten: Mapping[str, str] | None = None
    """What to draw instead of a prompt. The image is still scored against the original."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """Model, machine, versions: copied into ``run.json``."""

    def __post_init__(self) -> None:
        """Raises UserError for values that cannot be meant."""
        super().__post_init__()
        part, parts = self.shard
        require(part < parts, f"shard {part}/{parts} is none: use 0/4, 1/4, 2/4 and 3/4")


def draw(
    benchmark: Benchmark,
    out: Path,
    sampler: Sampler,
    options: DrawOptions,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    trivial: Mapping[str, Trivial] | None = None,
    on_fault: Callable[[str], None] = lambda line: None,
) -> int:
    """Draw what is not drawn yet of this shard's items; how many were. ``on_fault`` is told of those that cannot be.

    Raises:
        UserError: if ``out`` holds something else, or was drawn with other settings.
    """
    fits = benchmark.any_number or options.samples in (None, benchmark.images)
    require(fits, f"the layout of {benchmark.title} takes {benchmark.images} images a prompt: leave --samples out")
    items = list(enumerate(benchmark.items()[: options.limit]))
    prompts = [_text(item, options) for _, item in items]
    _claim(out, {**_run_record(benchmark, options), "baselines": sorted(trivial) if trivial else None})
    logged = [(path, row) for path in chain_files(out) for row in read_records(path)[1] if "chains" in row]
    done = {read_field(row, "item", str, str(path)) for path, row in logged}
    part, parts = options.shard
    mine = items[len(items) * part // parts : len(items) * (part + 1) // parts]
    pending = [(number, item) for number, item in mine if item.id not in done]
    with open_records(out / f"chains-{part}-of-{parts}.jsonl", {"benchmark": benchmark.name}) as log:
        count = drawn = 0
        for group in _runs(pending, options, benchmark):
            tasks, faults = _tasks(benchmark, group, prompts)
            log.append(faults)
            for fault in faults:
                on_fault(f"{fault['item']}: {fault['failed']}")
            for run in _runs([one for one in group if one[0] in tasks], options, benchmark):
                log.append(_draw_group(benchmark, out, sampler, options, run, tasks, trivial or {}))
            count, drawn = count + len(group), drawn + len(tasks)
            on_progress(count, len(pending))
    return drawn


def chain_files(out: Path) -> list[Path]:
    """The logs of all shards that have begun: of one that is beginning the header may not be written yet."""
    return [path for path in sorted(out.glob("chains-*-of-*.jsonl")) if _has_line(path)]


def _has_line(path: Path) -> bool:
    with open_regular(path) as file:
        return file.readline().endswith(b"\n")


def arms(folder: Path) -> list[str]:
    """The folders to score: those of a drawn folder, or the folder itself ("") if somebody else drew it."""
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}")
    if not (folder / RUN).is_file():
        return [""]
    names = [
        path.name for path in folder.iterdir() if path.is_dir() and (arm_number(path.name) or path.name in BASELINES)
    ]
    if not names:
        raise UserError(f"nothing has been drawn in {folder} yet")
    return sorted(names, key=lambda name: (name in BASELINES, name.startswith("draft_"), arm_number(name), name))


def arm_number(name: str) -> int:
    """3 of ``round_3`` or ``draft_3``; 0 of any other name."""
    kind, _, number = name.partition("_")
    return int(number) if kind in ("round", "draft") and number.isascii() and number.isdigit() else 0


def by_name(
    folder: Path, items: Sequence[Item], pattern: str, read: Callable[[re.Match[str]], tuple[str, int]]
) -> Survey:
    """Images of a flat folder whose names say which prompt they are of; ``read``: match -> (id, index).

    Raises:
        UserError: where no name does.
    """
    known = {item.id: item for item in items}
    shots, complaints = [], []
    for path in sorted(folder.iterdir()):
        match = re.fullmatch(pattern, path.name)
        name, index = read(match) if match else ("", 0)
        if name in known and path.is_file():
            shots.append(Shot(known[name], index, path.name))
        elif path.suffix == ".png":
            complaints.append(f"{path.name}: not scored, since it is named after none of the prompts")
    if not shots and not complaints:
        raise UserError(f"no image in {folder} is named after a prompt of the benchmark")
    return Survey(shots, complaints)


def save_png(path: Path, image: np.ndarray) -> None:
    write_atomically(path, lambda temporary: Image.fromarray(image).save(temporary, "PNG"), "file")


def _text(item: Item, options: DrawOptions) -> str:
    if options.rewritten is None:
        return item.prompt
    if item.prompt not in options.rewritten:
        raise UserError(f"the rewritten prompts lack {item.prompt!r}")
    return options.rewritten[item.prompt]


def _run_record(benchmark: Benchmark, options: DrawOptions) -> dict[str, Any]:
    told = asdict(options)
    for key in ("shard", "batch", "rewritten", "record"):
        del told[key]
    digest = None
    if options.rewritten is not None:
        pairs = "\n".join(f"{a}\t{b}" for a, b in sorted(options.rewritten.items()))
        digest = hashlib.sha256(pairs.encode()).hexdigest()[:16]
    samples = options.samples or benchmark.images
    return {"benchmark": benchmark.name, **told, "samples": samples, "rewritten": digest, **options.record}


def _claim(out: Path, record: dict[str, Any]) -> None:
    """Begin a folder, or go on with one that was drawn alike."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is not a folder: choose another --out")
    path = out / RUN
    if not path.is_file():
        # what begins with a dot may be another shard's run.json, which is just being written
        if out.is_dir() and any(not one.name.startswith(".") for one in out.iterdir()):
            raise UserError(f"{out} holds other things: choose an empty or new folder")
        write_json(path, record)
        return
    was = read_json_object(path)
    mutable = ("environment", "limit")
    for key, value in record.items():
        if key not in mutable and was.get(key) != _as_json(value):
            told = was.get(key)
            raise UserError(f"{out} was drawn with other settings: {key} was {told!r:.80} and is {value!r:.80}")


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_as_json(one) for one in value]
    return {key: _as_json(one) for key, one in value.items()} if isinstance(value, dict) else value


def _runs(pending: list[tuple[int, Item]], options: DrawOptions, benchmark: Benchmark) -> list[list[tuple[int, Item]]]:
    """Items to draw together: neighbours, since a row's number follows from the place of its prompt."""
    most = 1 if options.shared_noise else max(1, options.batch // (options.samples or benchmark.images))
    groups: list[list[tuple[int, Item]]] = []
    for number, item in pending:
        if groups and len(groups[-1]) < most and groups[-1][-1][0] == number - 1:
            groups[-1].append((number, item))
        else:
            groups.append([(number, item)])
    return groups


def _tasks(
    benchmark: Benchmark, group: list[tuple[int, Item]], prompts: list[str]
) -> tuple[dict[int, Task], list[dict[str, Any]]]:
    """Tasks by the numbers of their items, and a line for the log of every item that has none."""
    tasks, faults = {}, []
    for number, item in group:
        try:
            tasks[number] = benchmark.task(item, prompts[number])
        except UserError as error:
            faults.append({"item": item.id, "failed": str(error)})
    return tasks, faults


def _draw_group(
    benchmark: Benchmark,
    out: Path,
    sampler: Sampler,
    options: DrawOptions,
    group: list[tuple[int, Item]],
    tasks: Mapping[int, Task],
    trivial: Mapping[str, Trivial],
) -> list[dict[str, Any]]:
    """Draw, write the images of all arms, and return the lines for the log."""
    samples, rounds = options.samples or benchmark.images, options.settings.rounds
    settings = replace(options.settings, early_stop=True)
    asked = [tasks[number] for number, _ in group for _ in range(samples)]
    first = 0 if options.shared_noise else group[0][0] * samples
    chains = _sampled(sampler, asked, settings, first)
    extra = rounds - 1 if options.controls else 0
    alone = replace(settings, rounds=1, seed=settings.seed + CONTROL_SEED)
    drafts = _sampled(sampler, [task for task in asked for _ in range(extra)], alone, first * extra)
    lines = []
    for place, (_, item) in enumerate(group):
        mine = chains[place * samples : (place + 1) * samples]
        others = [drafts[(place * samples + i) * extra : (place * samples + i + 1) * extra] for i in range(samples)]
        for limit in range(1, rounds + 1):
            images = [chain.rounds[chain.final_within(limit)].pixels for chain in mine]
            benchmark.write(out / f"round_{limit}", item, images)
        for number in range(extra):
            benchmark.write(out / f"draft_{number + 2}", item, [row[number].rounds[0].pixels for row in others])
        for name, made in trivial.items():
            benchmark.write(out / name, item, made(asked[place * samples : (place + 1) * samples]))
        logged = [_logged(*pair) for pair in zip(mine, others, strict=True)]
        lines.append({"item": item.id, "prompt": mine[0].prompt, "chains": logged})
    return lines


def _sampled(sampler: Sampler, tasks: list[Task], settings: Settings, first_row: int) -> list[Chain]:
    """Raises ValueError for a sampler that breaks its contract: images must not change places."""
    chains = sampler(tasks, settings, first_row) if tasks else []
    check_chains(chains, [task.prompt for task in tasks], settings.rounds, "task")
    return chains


def _logged(chain: Chain, others: Sequence[Chain]) -> dict[str, Any]:
    drafts = [_verdict(one.rounds[0]) for one in others]
    return {"row": chain.row, "final": chain.final, "rounds": [_verdict(r) for r in chain.rounds], "drafts": drafts}


def _verdict(drawn: Round) -> dict[str, Any]:
    said = drawn.verdict
    p_yes = said.p_yes if math.isfinite(said.p_yes) else None
    tokens = {"image_tokens": len(drawn.ids), "list_tokens": len(said.list_ids), "text_tokens": len(said.ids)}
    return {"accepted": said.accepted, "p_yes": p_yes, "text": said.text, **tokens}
