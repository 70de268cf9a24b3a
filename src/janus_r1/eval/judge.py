"""Models and rewards as judges: on drafts of a world, and on the rows of a user.

Of a world, one fixed set: the same drafts for every judge, half of them right. They are those of one drawing model on
test prompts, so that judges of different skill at drawing can be compared (the paper has a table of judge agreement;
its judges see each its own).

``janus-r1 eval judge --data rows.jsonl`` reads what ``janus-r1 data import`` reads; the label is ``label`` (yes, no,
1, 0) or a ``score``. A judge says Yes from P(yes) = 0.5 on; what it abstains on is counted and left out of its figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from janus_r1.chain import Settings, Task, Verdict
from janus_r1.data.importing import read_records
from janus_r1.data.report import contact_sheet
from janus_r1.data.store import Record, Store, is_store
from janus_r1.errors import UserError, require
from janus_r1.eval.protocol import choose_tasks
from janus_r1.eval.statistics import figure, judge_figures
from janus_r1.fields import Checked, Positive, Range
from janus_r1.files import write_atomically
from janus_r1.images import decode_image
from janus_r1.rewards.score import Abstained, Item, Reward, Score
from janus_r1.worlds import DEFAULT
from janus_r1.worlds import base as worlds
from janus_r1.worlds.base import WorldTask

if TYPE_CHECKING:  # torch only where it is needed
    from janus_r1.model.janus import Janus

Judge = Callable[[list[np.ndarray], list[str]], list[Verdict]]


@dataclass(frozen=True)
class JudgeOptions(Checked):
    """Which drafts are judged."""

    world: str = DEFAULT
    """Its name, a Python file, or module:name."""
    split: str = "test"
    """Prompts of the drafts."""
    samples: Positive = 4
    """Drafts a prompt, before balancing."""
    limit: Positive | None = None
    """Prompts at most, balanced over families; with --data rows at most."""
    guidance: Annotated[float, Range(ge=1)] = 1.5
    """Of the drafts."""
    seed: int = 0
    """Of the drafts."""


@dataclass(frozen=True)
class JudgeSet:
    """Images to judge, with what is true of them."""

    images: list[np.ndarray]
    prompts: list[WorldTask]
    numbers: np.ndarray
    """Which prompt each belongs to [N]."""
    right: np.ndarray
    """1 or 0 [N]."""


def judge_set(drawer: Janus, options: JudgeOptions) -> JudgeSet:
    """As many right as wrong drafts of every prompt family, chosen by a fixed seed.

    Raises:
        UserError: if no family has both.
    """
    from janus_r1.introspect import introspect  # torch only where it is needed

    world = worlds.world(options.world)
    prompts = choose_tasks(world, options.split, options.limit)
    numbers = np.repeat(np.arange(len(prompts)), options.samples)
    settings = Settings(rounds=1, guidance=options.guidance, seed=options.seed, max_reason_tokens=1)
    chains = introspect(drawer, [prompts[i] for i in numbers], settings)
    images = [chain.pixels for chain in chains]
    right = np.array([world.check(prompts[i], p).correct for p, i in zip(images, numbers, strict=True)], float)
    families = np.array([prompts[i].family for i in numbers])
    chosen = _balanced(right, families, options.seed)
    if not len(chosen):
        raise UserError(f"all {len(right)} drafts are alike, right or wrong: judge more prompts, or another drawer's")
    return JudgeSet([images[i] for i in chosen], [prompts[numbers[i]] for i in chosen], numbers[chosen], right[chosen])


def _balanced(right: np.ndarray, families: np.ndarray, seed: int) -> np.ndarray:
    """Sorted indices: in every family as many right as wrong."""
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for family in dict.fromkeys(families.tolist()):
        classes = [np.flatnonzero((families == family) & (right == value)) for value in (0, 1)]
        size = min(map(len, classes))
        for members in classes:
            chosen += rng.choice(members, size, replace=False).tolist()
    return np.sort(np.array(chosen, dtype=int))


def evaluate_judge(judge: Judge, held: JudgeSet) -> dict[str, Any]:
    """Accuracy, AUROC and calibration over the set, and accuracy by family."""
    verdicts = judge(held.images, [prompt.prompt for prompt in held.prompts])
    said = np.array([verdict.accepted for verdict in verdicts], float)
    p_yes = np.array([verdict.p_yes for verdict in verdicts])
    families = np.array([prompt.family for prompt in held.prompts])
    agree = (said == held.right).astype(float)
    return {
        "images": len(said),
        "verdict": judge_figures(said, held.right, p_yes, held.numbers),
        "families": {f: _by(agree, held.numbers, families == f) for f in dict.fromkeys(families.tolist())},
        "accepted_wrong": _by(said, held.numbers, held.right == 0),
        "rejected_right": _by(1 - said, held.numbers, held.right == 1),
    }


def _by(values: np.ndarray, numbers: np.ndarray, mine: np.ndarray) -> dict[str, Any]:
    return dict(figure(values[mine], numbers[mine]))


# ------------------------------------------------------------------------------------------- the user's own rows


RIGHT = 0.5  # labels and P(yes) from here on are a Yes
BATCH = 64  # rows at once: their images are all that is held


@dataclass
class Answers:
    """What one judge said."""

    p_yes: list[float] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    """The rows that it answered."""
    abstained: Counter[str] = field(default_factory=Counter)
    worst: list[tuple[float, Record, float]] = field(default_factory=list)
    """(how wrong, the row, P(yes)) of its worst errors."""


def judge_rows(
    data: Path,
    judges: Mapping[str, Reward],
    columns: dict[str, str] | None = None,
    limit: int = 0,
    worst: int = 20,
    sheets: Path | None = None,
) -> dict[str, Any]:
    """Accuracy, balanced accuracy, AUROC and calibration of judges on labelled images, with 95 % intervals over texts.

    Args:
        data: A store, or any file or folder that ``data import`` reads, with a label or a score in every row.
        judges: Rewards by the names that they have in the table.
        columns: Names that are not known by themselves, ours to yours; label counts as score.
        limit: Rows at most; 0 takes all.
        worst: Errors of every judge that are told.
        sheets: Folder for a PNG of every judge's worst errors.

    Raises:
        UserError: if no row has a label, or no judge answers any.
    """
    require(bool(judges), "there is no judge: name a model, or rewards")
    dropped: Counter[str] = Counter()
    answers = {name: Answers() for name in judges}
    labels: list[float] = []
    texts: list[str] = []
    for records in _batches(_labelled(data, columns or {}, dropped), limit):
        items = [_item(record) for record in records]
        for name, judge in judges.items():
            _take(answers[name], judge.score(items), records, len(labels), worst)
        labels += [float((record.score or 0.0) >= RIGHT) for record in records]
        texts += [record.prompt for record in records]
    if not labels:
        causes = "; ".join(f"{cause} ({count})" for cause, count in dropped.most_common(3)) or "it has no rows"
        raise UserError(f"{data} has no row with a label: {causes}")
    truth, clusters = np.array(labels), np.unique(texts, return_inverse=True)[1]
    if sheets is not None:
        for name, said in answers.items():
            _write_sheet(Path(sheets) / f"{_plain(name)}.png", said)
    return {
        "rows": len(labels),
        "yes": int(truth.sum()),
        "dropped": dict(dropped),
        "judges": {name: _figures(name, said, truth, clusters) for name, said in answers.items()},
    }


def _labelled(data: Path, columns: dict[str, str], dropped: Counter[str]) -> Iterator[Record]:
    renamed = {("score" if ours == "label" else ours): theirs for ours, theirs in columns.items()}
    records = iter(Store(data)) if is_store(data) else read_records(data, renamed, dropped)
    for record in records:
        if record.score is None:
            dropped["row without a label"] += 1
        else:
            yield record


def _batches(records: Iterator[Record], limit: int) -> Iterator[list[Record]]:
    left = islice(records, limit or None)
    while batch := list(islice(left, BATCH)):
        yield batch


def _item(record: Record) -> Item:
    source = None if record.source_image is None else decode_image(record.source_image, record.id)
    return Task(record.prompt, source, columns=record.extra), decode_image(record.image, record.id)


def _take(answers: Answers, scores: Sequence[Score], records: Sequence[Record], first: int, worst: int) -> None:
    for row, (record, score) in enumerate(zip(records, scores, strict=True), first):
        if isinstance(score, Abstained):
            answers.abstained[score.cause] += 1
            continue
        answers.rows.append(row)
        answers.p_yes.append(score)
        label = float((record.score or 0.0) >= RIGHT)
        if (score >= RIGHT) != bool(label):
            answers.worst.append((abs(score - label), record, score))
    answers.worst = sorted(answers.worst, key=lambda error: -error[0])[:worst]


def _figures(name: str, said: Answers, truth: np.ndarray, clusters: np.ndarray) -> dict[str, Any]:
    if not said.rows:
        causes = ", ".join(f"{cause} ({count})" for cause, count in said.abstained.most_common(3))
        raise UserError(f"the judge {name} answered no row: {causes}")
    p_yes = np.array(said.p_yes)
    own = np.array(said.rows)
    figures = judge_figures((p_yes >= RIGHT).astype(float), truth[own], p_yes, clusters[own])
    errors = [
        {"id": record.id, "text": record.prompt, "label": record.score, "p_yes": round(score, 4)}
        for _, record, score in said.worst
    ]
    return {"answered": len(own), "abstained": dict(said.abstained), **figures, "worst": errors}


def _write_sheet(path: Path, said: Answers) -> None:
    """The worst errors as a contact sheet; nothing where there is none."""
    if not said.worst:
        return
    shown = [
        Record(record.id, record.prompt, record.image, record.score, f"the judge: {score:.2f}", source=record.id)
        for _, record, score in said.worst
    ]
    picture = contact_sheet(shown)
    write_atomically(path, lambda temporary: picture.save(temporary, "PNG"), "file")


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)
