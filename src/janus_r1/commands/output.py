"""How commands answer: stdout for answers, stderr for all else, files, and a folder of chains with its index and story.

What cannot be written is refused before slow work.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from janus_r1.chain import SOURCE, Chain, Settings
from janus_r1.errors import UserError, one_line, require
from janus_r1.fields import Checked
from janus_r1.files import check_new_files, check_replaceable, locked, write_atomically, write_json
from janus_r1.sheet import sheet


def say(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Something is not as the user may think."""
    say(f"janus-r1: warning: {text}")


def note(text: str) -> None:
    """Something is done otherwise than was asked for."""
    say(f"janus-r1: note: {text}")


def print_json(value: dict[str, Any]) -> None:
    """The one JSON object of a command called with ``--json``."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


@contextlib.contextmanager
def answers_only(quiet: bool) -> Iterator[None]:
    """With ``quiet``, whatever else prints goes to stderr: stdout holds the JSON object alone."""
    with contextlib.redirect_stdout(sys.stderr) if quiet else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with ETA on stderr; nothing where stderr is no terminal. Yields ``update(done, total)``."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


INDEX = "chains.json"


@dataclass(frozen=True)
class ChainFolder(Checked):
    """Where chains are written, and how the command answers."""

    out: Path | None = None
    """Folder to write (default: outputs/WORDS-SEED)."""
    overwrite: bool = False
    """Replace --out if an earlier run wrote it."""
    json: bool = False
    """Print one JSON object on stdout, all else on stderr."""


@dataclass(frozen=True)
class ResultFile(Checked):
    """Where a measurement is written, and how the command answers."""

    out: Path | None = None
    """JSON file to write as well."""
    overwrite: bool = False
    """Replace --out if it exists."""
    json: bool = False
    """Print one JSON object on stdout, all else on stderr."""


def check_texts(texts: Sequence[str], kind: str = "prompt", task: str = "draw") -> None:
    """Raises UserError, before a model is loaded, where one is blank."""
    for text in texts:
        require(bool(text.strip()), f"the {kind} is empty: say what to {task}")


def check_writable(path: Path) -> None:
    """Find out before slow work whether ``path`` can be written; leaves nothing behind.

    Raises:
        UserError: if a parent is a file, or the disk refuses.
    """
    if path.name in ("", ".", ".."):
        raise UserError(f"--out {path} names no new file or folder: choose a name inside it")
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise UserError(f"cannot write {path}: {parent} is a file")
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise UserError(f"cannot write {path}: {os.strerror(error.errno or 0)}; choose another --out") from None


def check_new_folder(path: Path, overwrite: bool, ours: str) -> None:
    """As :func:`check_writable`, and never replace a folder that does not hold the file ``ours``.

    Raises:
        UserError: if ``path`` exists and may not be replaced.
    """
    check_writable(path)
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise UserError(f"{path} exists already: pass --overwrite to replace it, or choose another --out")
    check_replaceable(path, "folder")
    if any(path.iterdir()) and not (path / ours).is_file():
        raise UserError(f"{path} was not written by this command (no {ours} in it): choose another --out")


def check_result_file(path: Path, overwrite: bool) -> None:
    """As :func:`check_writable`, and never replace a file that the user did not give up.

    Raises:
        UserError: if ``path`` exists and may not be replaced.
    """
    check_writable(path)
    check_new_files(overwrite, path)


@contextlib.contextmanager
def new_folder(path: Path, overwrite: bool, ours: str) -> Iterator[None]:
    """Hold a folder that is to be written, so that no other process writes it as well.

    Raises:
        UserError: as :func:`check_new_folder`, and if another process holds it.
    """
    check_new_folder(path, overwrite, ours)
    with locked(path):
        check_new_folder(path, overwrite, ours)  # its last holder may just have written it
        yield


# ------------------------------------------------------------------------------------------ chains


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
        console.print(f"\n[bold]{escape(one_line(chain.prompt))}[/bold]  [dim]{name}[/dim]")
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
        table.add_row(
            f"  draft {number + 1}", word, f"p_yes {verdict.p_yes:.2f}", escape(one_line(verdict.reason)), mark
        )
    return table
