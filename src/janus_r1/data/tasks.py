"""Tasks to train on: an endless stream of a world, or what the user's files list; prompts to draw, edits, or both.

The tasks of a step are a pure function of seed and step, so that a resumed run sees the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from janus_r1.chain import Task
from janus_r1.data.store import Store, is_store
from janus_r1.data.task_files import EditReader, read_edits, read_tasks
from janus_r1.errors import UserError, nearest
from janus_r1.images import decode_image
from janus_r1.worlds.base import DEFAULT, Kind, world

TaskName = Literal["draw", "edit", "both"]
OF_WORLD = "world"  # in place of a file's name


@dataclass(frozen=True)
class Stream:
    """``step(count, seed, step)`` gives tasks to train on; the ``held_out`` ones are for evaluation alone."""

    held_out: list[Task]
    step: Callable[[int, int, int], list[Task]]


def tasks(
    name: TaskName,
    prompts: str,
    edits: str,
    held_out: int,
    edit_share: float = 0.5,
    edit_families: Sequence[str] = (),
    world_name: str = DEFAULT,
    prompt_families: Sequence[str] = (),
) -> Stream:
    """Prompts to draw, edits, or ``both``, of which ``edit_share`` are edits.

    ``prompts`` and ``edits`` are ``world``, whose training tasks avoid all its splits, a file as in
    :mod:`janus_r1.data.task_files`, or a store; the first ``held_out`` tasks of these are kept for evaluation. The
    world's tasks are of the families named, each as often as it is named.

    Raises:
        UserError: where a file is missing, broken or too short.
    """
    if name == "draw":
        return prompt_stream(prompts, held_out, world_name, prompt_families)
    if name == "edit":
        return edit_stream(edits, held_out, edit_families, world_name)
    kept = int(held_out * edit_share)
    drawn = prompt_stream(prompts, held_out - kept, world_name, prompt_families)
    return _mixed(drawn, edit_stream(edits, kept, edit_families, world_name), edit_share)


def check_families(world_name: str, families: Sequence[str], kind: Kind = "edit") -> None:
    """Raises UserError for a family of prompts or edits that the world does not have."""
    known = world(world_name).families(kind)
    for name in families:
        if name not in known:
            hint = nearest(name, known, f"it has {', '.join(known) or 'none'}")
            key = "edit_families" if kind == "edit" else "prompt_families"
            raise UserError(f"{key}: the world {world_name} has no family {name!r}; {hint}")


def prompt_stream(source: str, held_out: int, world_name: str = DEFAULT, families: Sequence[str] = ()) -> Stream:
    """Of a file every epoch is a new shuffle. Raises UserError as :func:`tasks`."""
    if source == OF_WORLD:
        return _of_world(world_name, "draw", held_out, families)
    listed = store_tasks([source]) if is_store(source) else read_tasks(source)
    kept = listed[held_out:]
    if not kept:
        raise UserError(f"{source} holds {len(listed)} prompts, all kept for evaluation: lower eval_prompts")
    return Stream(
        listed[:held_out], lambda count, seed, step: [_nth(kept, seed, step * count + i) for i in range(count)]
    )


def edit_stream(source: str, held_out: int, families: Sequence[str] = (), world_name: str = DEFAULT) -> Stream:
    """Of a file any row, anew at every step; results that it names are not used. Raises UserError as :func:`tasks`."""
    if source == OF_WORLD:
        return _of_world(world_name, "edit", held_out, families)
    rows = store_edits(source) if is_store(source) else read_edits(source, targets=False)
    if len(rows) <= held_out:
        raise UserError(f"{source} holds {len(rows)} edits, all kept for evaluation: lower eval_prompts")
    reader = EditReader(rows[held_out:])

    def step(count: int, seed: int, step: int) -> list[Task]:
        rng = random.Random(f"{seed} {step}")
        return [reader.pick(rng)[0] for _ in range(count)]

    return Stream([row.task() for row in rows[:held_out]], step)


def _mixed(draws: Stream, edits: Stream, edit_share: float) -> Stream:
    def step(count: int, seed: int, step: int) -> list[Task]:
        """Shuffled, so that processes and minibatches get their shares of both."""
        edited = int(count * edit_share)
        mixed = [*draws.step(count - edited, seed, step), *edits.step(edited, seed, step)]
        random.Random(f"{seed} {step}").shuffle(mixed)
        return mixed

    return Stream([*draws.held_out, *edits.held_out], step)


def _nth(listed: Sequence[Task], seed: int, index: int) -> Task:
    epoch, position = divmod(index, len(listed))
    order = list(range(len(listed)))
    random.Random(f"{seed} {epoch}").shuffle(order)
    return listed[order[position]]


def _of_world(name: str, kind: Kind, held_out: int, families: Sequence[str] = ()) -> Stream:
    """Those to evaluate on are of all families."""

    def some(count: int, seed: str, families: Sequence[str] = ()) -> list[Task]:
        return list(islice(world(name).stream(random.Random(seed), kind, families), count)) if count else []

    return Stream(some(held_out, "evaluation"), lambda count, seed, step: some(count, f"{seed} {step}", families))


def store_tasks(folders: Sequence[str | Path], count: int | None = None) -> list[Task]:
    """The first ``count`` different prompts to draw, each with its first row's other columns; where a store holds
    edits alone, these.

    Raises:
        UserError: if there is no store.
    """
    store, drawn, edits = Store(*folders), dict[str, Task](), list[int]()
    for index in range(len(store)):
        record = store.without_images(index)
        if record.source_image is not None:
            edits.append(index)
        elif record.prompt not in drawn:
            drawn[record.prompt] = Task(record.prompt, columns=record.extra)
        if count is not None and len(drawn) == count:
            break
    if drawn:
        return list(drawn.values())
    return [StoredEdit(store, index).task() for index in edits[:count]]


@dataclass(frozen=True)
class StoredEdit:
    """An edit of a store; its images are read when its task is wanted."""

    store: Store
    index: int
    target: Path | None = None

    @property
    def id(self) -> str:
        return self.store.without_images(self.index).id

    def task(self) -> Task:
        """Raises UserError where the source cannot be read."""
        record = self.store[self.index]
        return Task(record.prompt, decode_image(record.source_image or b"", record.id), columns=record.extra)


def store_edits(folder: str | Path) -> list[StoredEdit]:
    """All edits of a store.

    Raises:
        UserError: if it holds none.
    """
    store = Store(folder)
    edits = [StoredEdit(store, index) for index in _edited(store)]
    if not edits:
        raise UserError(f"{folder} holds no edits: images with a source_image")
    return edits


def _edited(store: Store) -> Iterator[int]:
    first = 0
    for batch in store.columns(["source_image.path"]):
        for row, source in enumerate(batch.column(0).to_pylist()):
            if source is not None and source["path"] is not None:
                yield first + row
        first += batch.num_rows
