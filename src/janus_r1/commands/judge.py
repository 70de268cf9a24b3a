"""``janus-r1 judge``: does an image match a text? Yes or No, why, and how sure."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from janus_r1.chain import Settings, Verdict
from janus_r1.commands.batch import memory_errors, plan_batch
from janus_r1.commands.checks import check_texts
from janus_r1.commands.model import load_model
from janus_r1.commands.terminal import answers_only, print_json, warn
from janus_r1.errors import UserError
from janus_r1.images import check_image, load_image


def run(args: argparse.Namespace) -> None:
    texts = texts_for(args.images, args.text)
    for path in args.images:
        check_image(path)
    with answers_only(args.json):
        settings = Settings.among(vars(args))
        batch = plan_batch(args, texts, len(args.images), settings, drawing=False)
        model = load_model(args.model, args.dtype, args.device, kv=args.kv)
        size = model.model.image_size
        pixels = [load_image(path, size, warn=warn) for path in args.images]
        with memory_errors(batch, args.device):
            verdicts = model.judge(pixels, texts, max_batch=batch, **asdict(settings))
    items = [_item(*entry) for entry in zip(args.images, texts, verdicts, strict=True)]
    if args.json:
        print_json({"model": args.model, "seed": args.seed, "verdicts": items})
    else:
        _show(items, verdicts)


def texts_for(images: list[str], texts: list[str]) -> list[str]:
    """One text for all images, or one an image.

    Raises:
        UserError: if they cannot be paired, or a text is empty.
    """
    check_texts(texts)
    if len(texts) not in (1, len(images)):
        raise UserError(f"{len(images)} images and {len(texts)} texts: pass one --text for all, or one an image")
    return texts * len(images) if len(texts) == 1 else texts


def _item(path: str, text: str, verdict: Verdict) -> dict[str, Any]:
    return {
        "image": path,
        "text": text,
        "accepted": verdict.accepted,
        "p_yes": round(verdict.p_yes, 4),
        "verdict": verdict.text,
    }


def _show(items: list[dict[str, Any]], verdicts: list[Verdict]) -> None:
    table = Table("image", "text", "verdict", "p_yes", "why", box=None, padding=(0, 2, 0, 0))
    for item, verdict in zip(items, verdicts, strict=True):
        word = "[green]Yes[/green]" if verdict.accepted else "[red]No[/red]"
        image, text = escape(item["image"]), escape(item["text"])
        table.add_row(image, text, word, f"{verdict.p_yes:.2f}", escape(verdict.reason))
    Console(highlight=False).print(table)
