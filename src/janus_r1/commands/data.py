"""``janus-r1 data``: the prompts and the edits of a world, by split and family."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from typing import Any

from rich.console import Console
from rich.markup import escape

from janus_r1.commands.terminal import print_json
from janus_r1.fields import Count
from janus_r1.worlds import DEFAULT
from janus_r1.worlds import base as worlds
from janus_r1.worlds.base import Kind, World


def splits(*, world: str = DEFAULT, examples: Count = 5, json: bool = False) -> None:
    """Show a world's prompts and edits, by split and family.

    Args:
        world: Its name, a Python file, or module:name
        examples: Prompts or edits shown a split
        json: Print one JSON object on stdout, all else on stderr

    Examples:
        janus-r1 data splits
        janus-r1 data splits --examples 10 --json
    """
    chosen = worlds.world(world)
    found, edits = (_splits(chosen, kind, examples) for kind in ("draw", "edit"))
    if json:
        print_json({"world": chosen.name, "splits": found, "edits": edits})
    else:
        _show(found, "prompts")
        _show({f"edits, {name}": item for name, item in edits.items()}, "edits")


def _splits(chosen: World, kind: Kind, examples: int) -> dict[str, Any]:
    """Of frozen splits a count and how many of each family; of the training stream the families' shares."""
    shown = {name: _frozen(chosen, name, kind, examples) for name in chosen.splits(kind)}
    if not (shares := chosen.shares(kind)):
        return shown
    stream = itertools.islice(chosen.stream(random.Random(0), kind), examples)
    rounded = {family: round(share, 3) for family, share in shares.items()}
    return shown | {"train": {"count": None, "families": rounded, "examples": [task.prompt for task in stream]}}


def _frozen(chosen: World, name: str, kind: Kind, examples: int) -> dict[str, Any]:
    tasks = chosen.tasks(name, kind)
    picked = random.Random(0).sample(tasks, min(examples, len(tasks)))
    families = dict(Counter(task.family for task in tasks))
    return {"count": len(tasks), "families": families, "examples": [task.prompt for task in picked]}


def _show(splits: dict[str, Any], noun: str) -> None:
    console = Console(highlight=False)
    for name, item in splits.items():
        count = "endless" if item["count"] is None else f"{item['count']} {noun}"
        families = ", ".join(f"{family} {share}" for family, share in item["families"].items())
        console.print(f"\n[bold]{name}[/bold]  {count}: {families}", soft_wrap=True)
        for text in item["examples"]:
            console.print(f"    {escape(text)}", soft_wrap=True, style="dim")
