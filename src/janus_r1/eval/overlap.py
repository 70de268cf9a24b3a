"""Contamination: which prompts of the benchmarks a set of prompts holds.

Prompts are compared without case, punctuation and spacing, and without "a photo of", with which GenEval begins.
GenEval's prompts are shipped; those of others are known where the user names their files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from janus_r1.data.task_files import read_prompts
from janus_r1.eval.benchmark import Benchmark

EXAMPLES = 5


@dataclass(frozen=True)
class Overlap:
    """Of one benchmark."""

    prompts: int
    """Of the benchmark that stand in the data."""
    of: int
    """Prompts that the benchmark has."""
    rows: int
    """Of the data that are such a prompt."""
    examples: tuple[str, ...]


def plain(prompt: str) -> str:
    """What is compared."""
    words = re.sub(r"[\W_]+", " ", prompt.casefold()).strip()
    return re.sub(r"^(?:an? )?(?:photo|picture|image) of ", "", words)


def overlap(data: Iterable[str], benchmarks: Mapping[str, Iterable[str]]) -> dict[str, Overlap]:
    """For every benchmark by name, given its prompts."""
    wanted = {name: {plain(prompt): prompt for prompt in prompts} for name, prompts in benchmarks.items()}
    hits: dict[str, dict[str, int]] = {name: {} for name in wanted}
    for prompt in data:
        key = plain(prompt)
        for name, known in wanted.items():
            if key in known:
                hits[name][key] = hits[name].get(key, 0) + 1
    return {
        name: Overlap(
            len(found), len(wanted[name]), sum(found.values()), tuple(wanted[name][key] for key in [*found][:EXAMPLES])
        )
        for name, found in hits.items()
    }


def prompts_of(benchmark: Benchmark) -> list[str]:
    return [item.prompt for item in benchmark.items()]


def own_prompts(path: Path) -> Iterator[str]:
    """Of a file of prompts, or of every image of a store.

    Raises:
        UserError: if it is neither.
    """
    if not path.is_dir():
        yield from read_prompts(str(path))
        return
    from janus_r1.data.store import Store  # pyarrow only where it is needed

    for batch in Store(path).columns(["prompt"]):
        yield from batch.to_pydict()["prompt"]
