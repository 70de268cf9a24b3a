"""A store's prompts and edits as tasks: what reinforcement learning draws, and what a preview shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from janus_r1.chain import Task
from janus_r1.data.store import Store
from janus_r1.errors import UserError
from janus_r1.images import decode_image


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
