"""Where a judge errs: accepted drafts that are wrong, rejected ones that are right, by family and by kind of mistake.

Judged are the first drafts of the model itself, so this also shows what reinforcement learning made of them: whether
it learnt to draw, or to draw what its judge lets pass.

    python studies/audit.py run --model tiny-r1 --out outputs/audit-r1       # audit.json, and examples of both errors
    python studies/audit.py page outputs/audit-sft/audit.json outputs/audit-r1/audit.json > docs/audit.md
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from janus_r1 import JanusR1
from janus_r1.chain import Chain, Settings, Task
from janus_r1.errors import UserError
from janus_r1.eval.protocol import Sampler, choose_tasks, in_turn
from janus_r1.eval.statistics import Figure, figure
from janus_r1.eval.tables import Grid, markdown, read_result, show
from janus_r1.eval.world import EvalOptions
from janus_r1.files import write_atomically, write_json
from janus_r1.sheet import side_by_side
from janus_r1.worlds import base as worlds
from janus_r1.worlds.shapes.scene import COLOURS, RELATIONS, SIZES

RESULT = "audit.json"
Result = dict[str, Any]

ERRORS = ("accepted_wrong", "rejected_right")


@dataclass(frozen=True)
class Judged:
    """A first draft with what is true of it."""

    chain: Chain
    prompt: int
    family: str
    why: str
    """What the verifier says."""
    failed: tuple[str, ...]
    """The facts that do not hold, in the verifier's words; none for a right draft."""

    @property
    def right(self) -> bool:
        return not self.failed

    @property
    def explained(self) -> bool:
        """Whether what the model says is one of the facts that do not hold."""
        return self.chain.rounds[0].verdict.reason in self.failed

    @property
    def accepted(self) -> bool:
        return self.chain.rounds[0].verdict.accepted

    @property
    def error(self) -> str | None:
        """One of :data:`ERRORS`, or None for a true verdict."""
        if self.accepted == self.right:
            return None
        return "accepted_wrong" if self.accepted else "rejected_right"

    @property
    def kind(self) -> str:
        """Of the mistake in a wrong draft; of the mistake that the model sees in a right one."""
        return failure_kind(self.chain.rounds[0].verdict.reason if self.right else self.why)


# ------------------------------------------------------------------------------------- kinds of mistakes


KINDS = ("missing", "surplus", "shape", "colour", "size", "place")
OTHER = "other"

_COUNT = re.compile(r"there (?:is|are) (\d+) objects? instead of (\d+)$")
_ABSENT = re.compile(r"there is no .+$")
_SHAPE = re.compile(r"there is an? .+ instead of an? .+$")
_PLACE = re.compile(rf"the .+ is not (?:{'|'.join(RELATIONS)}) the .+$")
_COLOUR = re.compile(rf"the .+ is (?:{'|'.join(COLOURS)}), not (?:{'|'.join(COLOURS)})$")
_SIZE = re.compile(rf"the .+ is (?:{'|'.join(SIZES)}), not (?:{'|'.join(SIZES)})$")
_PATTERNS = (("missing", _ABSENT), ("shape", _SHAPE), ("place", _PLACE), ("colour", _COLOUR), ("size", _SIZE))


def failure_kind(reason: str) -> str:
    """One of :data:`KINDS`, or ``other``. ``reason`` is without its Yes or No and without the full stop."""
    if count := _COUNT.match(reason):
        return "surplus" if int(count[1]) > int(count[2]) else "missing"
    return next((kind for kind, pattern in _PATTERNS if pattern.match(reason)), OTHER)


# ------------------------------------------------------------------------------------------- the audit


def judged_drafts(sample: Sampler, options: EvalOptions) -> list[Judged]:
    """First drafts with their verdicts; of ``options``, rounds and controls mean nothing here."""
    world = worlds.world(options.world)
    tasks = choose_tasks(world, options.split, options.limit)
    numbers = [number for number in range(len(tasks)) for _ in range(options.samples)]
    chains = sample([tasks[number] for number in numbers], replace(options.settings, rounds=1))
    judged = []
    for chain, number in zip(chains, numbers, strict=True):
        found = world.check(tasks[number], chain.rounds[0].pixels)
        judged.append(Judged(chain, number, tasks[number].family, found.reason, found.failed))
    return judged


def audit(sample: Sampler, options: EvalOptions) -> tuple[dict[str, Any], list[Judged]]:
    """Figures, ready for JSON, and the drafts behind them."""
    start = time.perf_counter()
    drafts = judged_drafts(sample, options)
    seconds = time.perf_counter() - start
    wrong, right = ([draft for draft in drafts if draft.right is truth] for truth in (False, True))
    mistaken = [draft for draft in right if not draft.accepted]
    found_out = [draft for draft in wrong if not draft.accepted]
    record = {
        key: value for key, value in asdict(options).items() if key not in ("kind", "rounds", "controls", "baselines")
    }
    result = {
        "run": {"benchmark": "audit", **record},
        "cost": {"seconds": seconds, "images": len(drafts)},
        "right": _share(drafts, lambda draft: draft.right),
        "accepted_wrong": {
            "of_wrong": _share(wrong, lambda draft: draft.accepted),
            "families": _by(wrong, lambda draft: draft.family, lambda draft: draft.accepted),
            "kinds": _by(wrong, lambda draft: draft.kind, lambda draft: draft.accepted),
        },
        "rejected_right": {
            "of_right": _share(right, lambda draft: not draft.accepted),
            "families": _by(right, lambda draft: draft.family, lambda draft: not draft.accepted),
            "claims": {kind: _of_kind(mistaken, kind) for kind in (*KINDS, OTHER)},
        },
        "rejected_wrong": {
            "explained": _share(found_out, lambda draft: draft.explained),
            "kinds": _by(found_out, lambda draft: draft.kind, lambda draft: draft.explained),
        },
    }
    return result, drafts


def _share(drafts: list[Judged], what: Callable[[Judged], bool]) -> Figure | None:
    """None where there is nothing to take a share of."""
    if not drafts:
        return None
    return figure([what(draft) for draft in drafts], [draft.prompt for draft in drafts])


def _of_kind(drafts: list[Judged], kind: str) -> Figure | None:
    return _share(drafts, lambda draft: draft.kind == kind)


def _by(drafts: list[Judged], key: Callable[[Judged], str], what: Callable[[Judged], bool]) -> dict[str, Figure | None]:
    """Shares within the drafts of one key each, the commonest key first."""
    keys = [name for name, _ in Counter(map(key, drafts)).most_common()]
    return {name: _share([draft for draft in drafts if key(draft) == name], what) for name in keys}


def examples(drafts: list[Judged], error: str, most: int = 12) -> list[Chain]:
    """Up to ``most`` chains with this error, one of each kind of mistake in turn; prompts carry the verifier's view."""
    shown = in_turn((draft for draft in drafts if draft.error == error), lambda draft: draft.kind)[:most]
    return [replace(draft.chain, prompt=f"{draft.chain.prompt} | verifier: {draft.why}") for draft in shown]


# ---------------------------------------------------------------------------------------- for people


def compared(results: Sequence[Result]) -> list[Grid]:
    """A column a model; every cell says of how many drafts it is the share."""
    return [
        Grid(
            "First drafts",
            [
                ["", *_models(results)],
                ["right", *(_cell(result["right"]) for result in results)],
                ["wrong ones that were accepted", *(_cell(r["accepted_wrong"]["of_wrong"]) for r in results)],
                ["right ones that were rejected", *(_cell(r["rejected_right"]["of_right"]) for r in results)],
                ["rejected wrong ones with a true reason", *(_cell(r["rejected_wrong"]["explained"]) for r in results)],
            ],
        ),
        _table("Share of wrong drafts that were accepted, by family", results, "accepted_wrong", "families"),
        _table("The same by what the verifier finds wrong first", results, "accepted_wrong", "kinds"),
        _table("Share of right drafts that were rejected, by family", results, "rejected_right", "families"),
        _table(
            "What the model finds wrong in right drafts (share of those rejected)", results, "rejected_right", "claims"
        ),
        _table(
            "Share of rejected wrong drafts with a true reason, by what is wrong", results, "rejected_wrong", "kinds"
        ),
    ]


def about(results: Sequence[Result]) -> str:
    """One paragraph: what was measured."""
    run = results[0]["run"]
    counts = ", ".join(f"{result['cost']['images']} of {result['run']['model']}" for result in results)
    return (
        f"First drafts on the prompts {run['split']}, {run['samples']} samples each: {counts}. Brackets are 95 % "
        "intervals over prompts; behind them the number of drafts of which it is the share."
    )


def _models(results: Sequence[Result]) -> list[str]:
    return [str(result["run"]["model"] or "model") for result in results]


def _table(title: str, results: Sequence[Result], error: str, part: str) -> Grid:
    parts = [result[error][part] for result in results]
    names = dict.fromkeys(name for figures in parts for name in figures)
    rows = [[name.replace("_", " "), *(_cell(figures.get(name)) for figures in parts)] for name in names]
    return Grid(title, [["", *_models(results)], *rows])


def _cell(figure: Figure | None) -> str:
    return f"{show(figure)} of {figure['n']}" if figure else "none"


def read_audits(paths: Sequence[str]) -> list[Result]:
    """Raises UserError for a file that is no audit."""
    return [read_result(path, "audit") for path in paths]


def page(results: Sequence[Result]) -> str:
    """All audits as one page of Markdown."""
    return "\n\n".join(["# Where the judge errs", *map(markdown, compared(results)), about(results)]) + "\n"


# ---------------------------------------------------------------------------------------- the script


def run(options: argparse.Namespace) -> str:
    """Audit a model; writes the folder ``--out`` and returns its page."""
    out = Path(options.out)
    if out.exists() and not (out / RESULT).is_file():
        raise UserError(f"{out} was not written by this script (no {RESULT} in it): choose another --out")
    model = JanusR1.from_pretrained(options.model, options.dtype, options.device)

    def sample(tasks: list[Task], settings: Settings) -> list[Chain]:
        prompts = [task.prompt for task in tasks]
        return model.generate(prompts, max_batch=options.max_batch, **asdict(settings))

    wanted = EvalOptions(
        split=options.split,
        samples=options.samples,
        limit=options.limit,
        settings=Settings(rounds=1),
        model=options.model,
    )
    result, drafts = audit(sample, wanted)

    def write(folder: Path) -> None:
        folder.mkdir()
        write_json(folder / RESULT, result)
        for error in ERRORS:
            if chains := examples(drafts, error):
                side_by_side(chains).save(folder / f"{error}.png")

    write_atomically(out, write)
    return page([result])


def main(argv: Sequence[str] | None = None) -> None:
    """Bad input ends in one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="audit.py", description=str(__doc__).splitlines()[0])
    actions = parser.add_subparsers(dest="action", required=True)
    auditor = actions.add_parser("run", help="audit a model")
    auditor.add_argument("--model", default="tiny-r1")
    auditor.add_argument("--out", required=True, help="folder to write")
    auditor.add_argument("--split", default="test")
    auditor.add_argument("--samples", type=int, default=4, help="drafts a prompt")
    auditor.add_argument("--limit", type=int, help="prompts at most")
    auditor.add_argument("--dtype", default="float32")
    auditor.add_argument("--device", default="cpu")
    auditor.add_argument("--max-batch", type=int, default=128)
    pages = actions.add_parser("page", help="print audits side by side, as Markdown")
    pages.add_argument("paths", nargs="+", metavar=RESULT)
    options = parser.parse_args(argv)
    try:
        print(run(options) if options.action == "run" else page(read_audits(options.paths)), end="")
    except UserError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")


if __name__ == "__main__":
    main()
