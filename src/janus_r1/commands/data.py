"""``janus-r1 data``: one's own images and prompts, and the tasks of a world."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from janus_r1.commands.output import answers_only, print_json, say
from janus_r1.data import making
from janus_r1.data.importing import AS_IT_COMES, ImportOptions, import_data, renamed
from janus_r1.data.make_recipe import MakeRecipe
from janus_r1.data.report import look_at, own_prompts, show_rows
from janus_r1.data.report import overlap as overlap_of
from janus_r1.data.report import show as show_report
from janus_r1.errors import require
from janus_r1.fields import Count, Positive
from janus_r1.files import check_new_files
from janus_r1.worlds import DEFAULT
from janus_r1.worlds import base as worlds
from janus_r1.worlds.base import Kind, World


def import_(
    source: Path,
    out: Path,
    *,
    columns: tuple[str, ...] = (),
    options: ImportOptions = AS_IT_COMES,
    prompts: tuple[str, ...] = (),
    resume: bool = False,
    json: bool = False,
) -> None:
    """Read images with prompts, scores, reasons or edits into a store to train on.

    Understood are image folders with metadata or with a text beside every image, webdataset tars, parquet with image
    columns, JSON lines, lists, CSV, folders of pairs, the released Janus-Pro-R1 data, UltraEdit, OmniEdit, AnyEdit,
    InstructPix2Pix and their like. Every image is decoded and checked; what is left out is counted by its cause.

    Args:
        source: A file or a folder
        out: Folder of the store
        columns: A name that is not known by itself, ours to yours: prompt=my_caption; may be repeated. Ours are prompt,
            image, source_image, score, reason, claims, source, licence, id, wrong and right
        prompts: A file of test prompts, whose overlap with the data is reported; may be repeated
        resume: Go on with an import that was interrupted

    Examples:
        janus-r1 data import pictures data/pictures --licence cc0-1.0
        janus-r1 data import rows.jsonl data/rows --columns prompt=caption --columns score=rating --score-scale 10
    """
    with answers_only(json):
        named, tests = dict(renamed(name) for name in columns), [Path(name) for name in prompts]
        report = import_data(source, out, options, columns=named, prompts=tests, resume=resume)
    if json:
        print_json(report.as_dict())
    else:
        show_report(report)


def look(
    data: Path,
    *,
    rows: Positive = 20,
    seed: int = 0,
    sheet: Path | None = None,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Show some rows of a store, and on request a sheet of their images.

    Args:
        data: Folder of the store
        rows: How many rows
        seed: Which ones
        sheet: PNG file for the images with what is said of them
        overwrite: Replace --sheet if it exists

    Examples:
        janus-r1 data look data/pictures --sheet pictures.png
    """
    check_new_files(overwrite, sheet)
    found = look_at(data, rows, seed, sheet)
    if json:
        print_json({"data": str(data), "rows": found})
    else:
        show_rows(found)
        if sheet:
            say(f"wrote {sheet}")


def make(recipe: MakeRecipe, resume: bool = False, dry_run: bool = False) -> Path | None:
    """Make training data of prompts: images of one or several drawers, scores and reasons of a judge.

    Args:
        resume: Go on with a build that was interrupted
        dry_run: Say what it would take, and do nothing

    Examples:
        janus-r1 data make --config make.yaml --dry-run
        janus-r1 data make --config make.yaml
    """
    made = making.make_data(recipe, resume, dry_run)
    if made.report:
        show_report(made.report)
    _show_cost(made, dry_run)
    return None if dry_run else Path(recipe.out)


def _show_cost(made: making.Made, dry_run: bool) -> None:
    cost = asdict(made.cost)
    missing = cost.pop("missing")
    table = Table("", "at most" if dry_run else "taken", box=None, padding=(0, 2, 0, 0))
    table.add_row("prompts", str(made.prompts))
    for name, value in cost.items():
        table.add_row(name.replace("_", " "), f"{value:g}")
    table.add_row("price", f"{made.price:.2f}")
    for cause, count in missing.items():
        table.add_row(cause, str(count))
    Console(highlight=False).print(table)


def overlap(prompts: Path, *, data: list[str] | None = None, json: bool = False) -> None:
    """Which prompts of the benchmarks stand in one's own: a file of prompts, or a store of `data import`.

    Args:
        prompts: The file or the store
        data: Files of benchmarks whose prompts are not shipped, such as dpg=DPG-Bench wise=data_verified
        json: Print JSON in place of lines
    """
    from janus_r1.commands.benchmarks import benchmark

    named: dict[str, Path | None] = {"geneval": None}
    for text in data or []:
        name, equals, path = text.partition("=")
        require(bool(equals and path), f"--data {text!r} is no NAME=FILE, such as dpg=DPG-Bench")
        named[name] = Path(path)
    sets = {name: [item.prompt for item in benchmark(name, path).items()] for name, path in named.items()}
    found = overlap_of(own_prompts(prompts), sets)
    if json:
        print_json({name: asdict(one) for name, one in found.items()})
        return
    for name, one in found.items():
        shown = f", such as {one.examples[0]!r}" if one.examples else ""
        print(f"{name}: {one.prompts} of its {one.of} prompts stand in {one.rows} rows of the data{shown}")


def splits(*, world: str = DEFAULT, examples: Count = 5, json: bool = False) -> None:
    """Show a world's prompts and edits, by split and family.

    Args:
        examples: Prompts or edits shown a split

    Examples:
        janus-r1 data splits
        janus-r1 data splits --examples 10 --json
    """
    chosen = worlds.world(world)
    found, edits = (_splits(chosen, kind, examples) for kind in ("draw", "edit"))
    if json:
        print_json({"world": chosen.name, "splits": found, "edits": edits})
    else:
        _show_splits(found, "prompts")
        _show_splits({f"edits, {name}": item for name, item in edits.items()}, "edits")


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


def _show_splits(splits: dict[str, Any], noun: str) -> None:
    console = Console(highlight=False)
    for name, item in splits.items():
        count = "endless" if item["count"] is None else f"{item['count']} {noun}"
        families = ", ".join(f"{family} {share}" for family, share in item["families"].items())
        console.print(f"\n[bold]{name}[/bold]  {count}: {families}", soft_wrap=True)
        for text in item["examples"]:
            console.print(f"    {escape(text)}", soft_wrap=True, style="dim")
