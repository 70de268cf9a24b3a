"""``janus-r1 data splits``: the prompts and the edits of the world, by split and family."""

from __future__ import annotations

import argparse
import itertools
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from janus_r1.commands.terminal import print_json
from janus_r1.eval.checks import SPLITS
from janus_r1.worlds.shapes.edit_cases import EDIT_COUNTS, FAMILIES, Instruction, edit_split, train_edits
from janus_r1.worlds.shapes.prompts import TRAIN_WEIGHTS, Prompt, split, train_prompts


def run(args: argparse.Namespace) -> None:
    splits = _prompts(args.examples)
    edits = _edits(args.examples)
    if args.json:
        print_json({"world": "shapes", "splits": splits, "edits": edits})
    else:
        _show(splits, "prompts")
        _show({f"edits, {name}": item for name, item in edits.items()}, "edits")


def _prompts(examples: int) -> dict[str, Any]:
    stream = itertools.islice(train_prompts(random.Random(0)), examples)
    return {name: _frozen(split(name), examples) for name in SPLITS} | {"train": _endless(TRAIN_WEIGHTS, stream)}


def _edits(examples: int) -> dict[str, Any]:
    frozen = {name: _frozen([case.instruction for case in edit_split(name)], examples) for name in EDIT_COUNTS}
    stream = (case.instruction for case in itertools.islice(train_edits(random.Random(0)), examples))
    return frozen | {"train": _endless({family: round(1 / len(FAMILIES), 3) for family in FAMILIES}, stream)}


def _frozen(items: Sequence[Prompt | Instruction], examples: int) -> dict[str, Any]:
    families = Counter(item.family for item in items)
    chosen = random.Random(0).sample(items, min(examples, len(items)))
    return {"count": len(items), "families": dict(families), "examples": [item.text for item in chosen]}


def _endless(shares: Mapping[str, float], stream: Iterable[Prompt | Instruction]) -> dict[str, Any]:
    """Training items are a stream: shares instead of counts."""
    return {"count": None, "families": dict(shares), "examples": [item.text for item in stream]}


def _show(splits: dict[str, Any], noun: str) -> None:
    console = Console(highlight=False)
    for name, item in splits.items():
        count = "endless" if item["count"] is None else f"{item['count']} {noun}"
        families = ", ".join(f"{family} {share}" for family, share in item["families"].items())
        console.print(f"\n[bold]{name}[/bold]  {count}: {families}", soft_wrap=True)
        for text in item["examples"]:
            console.print(f"    {escape(text)}", soft_wrap=True, style="dim")
