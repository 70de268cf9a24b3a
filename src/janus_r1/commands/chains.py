"""Chains as ``generate`` and ``edit`` leave them: a folder, its index, and the story on the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from janus_r1.chain import SOURCE, Chain, Settings
from janus_r1.commands.terminal import say
from janus_r1.errors import UserError
from janus_r1.files import write_atomically, write_json
from janus_r1.sheet import sheet

INDEX = "chains.json"


def slug(prompts: Sequence[str]) -> str:
    """A folder name that tells what was asked for."""
    words = re.sub(r"[^a-z0-9]+", "-", prompts[0].lower()).strip("-")[:48].strip("-") or "prompt"
    return words if len(prompts) == 1 else f"{words}-and-{len(prompts) - 1}-more"


def names(chains: Sequence[Chain]) -> list[str]:
    """Folder of each chain: 001, 002, ... so that they sort as they were asked for."""
    width = max(2, len(str(len(chains))))
    return [f"{number:0{width}d}" for number in range(1, len(chains) + 1)]


def index(chains: Sequence[Chain], out: Path, settings: Settings) -> dict[str, Any]:
    """What ``chains.json`` and ``--json`` hold: paths, verdicts, which draft is final, how to repeat it."""
    items = [_item(chain, out / name) for chain, name in zip(chains, names(chains), strict=True)]
    return {
        "out": str(out),
        "sheet": str(out / "sheet.png"),
        "seed": settings.seed,
        "settings": asdict(settings),
        "accepted": sum(chain.accepted for chain in chains),
        "chains": items,
    }


def _item(chain: Chain, folder: Path) -> dict[str, Any]:
    rounds = [
        {
            "image": str(folder / f"round_{number}.png"),
            "accepted": item.verdict.accepted,
            "p_yes": round(item.verdict.p_yes, 4),
            "verdict": item.verdict.text,
        }
        for number, item in enumerate(chain.rounds, 1)
    ]
    final = chain.final + 1
    edited = {"source": str(folder / SOURCE)} if chain.source else {}
    return {
        "prompt": chain.prompt,
        **edited,
        "folder": str(folder),
        "image": str(folder / f"round_{final}.png"),
        "final_round": final,
        "accepted": chain.accepted,
        "p_yes": rounds[chain.final]["p_yes"],
        "rounds": rounds,
    }


def save(chains: Sequence[Chain], out: Path, record: dict[str, Any]) -> None:
    """One folder a chain, the sheet of all, the index; the whole appears at once or not at all."""

    def write(temporary: Path) -> None:
        temporary.mkdir()
        for chain, name in zip(chains, names(chains), strict=True):
            chain.save(temporary / name, also=partial(_save_sheet, [chain]))
        _save_sheet(chains, temporary)
        write_json(temporary / INDEX, record)

    try:
        write_atomically(out, write)
    except UserError as error:  # speak of the folder asked for, not of the temporary one
        why = str(error).partition(": ")[2] or str(error)
        raise UserError(f"cannot write {out}: {why}") from None


def _save_sheet(chains: Sequence[Chain], folder: Path) -> None:
    sheet(chains).save(folder / "sheet.png")


def show(chains: Sequence[Chain], out: Path, seconds: float) -> None:
    """The story of every chain on the terminal."""
    console = Console(highlight=False)
    for chain, name in zip(chains, names(chains), strict=True):
        console.print(f"\n[bold]{escape(chain.prompt)}[/bold]  [dim]{name}[/dim]")
        console.print(_story(chain))
    accepted = sum(chain.accepted for chain in chains)
    console.print(f"\n{accepted} of {len(chains)} accepted by the model itself, {seconds:.1f} s")
    console.print(f"look at {out / 'sheet.png'}", soft_wrap=True)
    if not accepted:
        say("no draft was accepted: try more --rounds or --samples")


def _story(chain: Chain) -> Table:
    """A line a round: the draft, Yes or No, p_yes, why, and what came of it."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    table.add_column(no_wrap=True)
    for number, item in enumerate(chain.rounds):
        verdict = item.verdict
        word = "[green]Yes[/green]" if verdict.accepted else "[red]No[/red]"
        end = "-> redraw" if number + 1 < len(chain.rounds) else ""
        mark = "[bold]<- final[/bold]" if number == chain.final else end
        table.add_row(f"  draft {number + 1}", word, f"p_yes {verdict.p_yes:.2f}", escape(verdict.reason), mark)
    return table
