"""``janus-r1 data splits``: the prompts of the world, by split and family."""

from __future__ import annotations

import argparse
import itertools
import random
from collections import Counter
from typing import Any

from rich.console import Console
from rich.markup import escape

from janus_r1.commands.terminal import print_json
from janus_r1.world.prompts import TRAIN_WEIGHTS, split, train_prompts

FROZEN = ("test", "dense", "held_out")


def run(args: argparse.Namespace) -> None:
    splits = {name: _frozen(name, args.examples) for name in FROZEN} | {"train": _train(args.examples)}
    if args.json:
        print_json({"world": "shapes", "splits": splits})
    else:
        _show(splits)


def _frozen(name: str, examples: int) -> dict[str, Any]:
    prompts = split(name)
    families = Counter(prompt.family for prompt in prompts)
    chosen = random.Random(0).sample(prompts, min(examples, len(prompts)))
    return {"count": len(prompts), "families": dict(families), "examples": [prompt.text for prompt in chosen]}


def _train(examples: int) -> dict[str, Any]:
    """The endless stream: shares instead of counts."""
    texts = [prompt.text for prompt in itertools.islice(train_prompts(random.Random(0)), examples)]
    return {"count": None, "families": dict(TRAIN_WEIGHTS), "examples": texts}


def _show(splits: dict[str, Any]) -> None:
    console = Console(highlight=False)
    for name, item in splits.items():
        count = "endless" if item["count"] is None else f"{item['count']} prompts"
        families = ", ".join(f"{family} {share}" for family, share in item["families"].items())
        console.print(f"\n[bold]{name}[/bold]  {count}: {families}", soft_wrap=True)
        for text in item["examples"]:
            console.print(f"    {escape(text)}", soft_wrap=True, style="dim")
