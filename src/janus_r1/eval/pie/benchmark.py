"""PIE-Bench for an editor: every metric, overall and by edit type, beside two trivial editors.

The editor gets the 512 x 512 source and fits it to its own size; what it returns is brought to 512 x 512 (bicubic)
and compared there with the source itself. Chains are sampled once, with the largest round limit; what a smaller
one would have given is read off the same chains. Overall figures are means over pictures, as the benchmark's are;
intervals are over pictures.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from janus_r1.chain import Chain, Settings
from janus_r1.errors import UserError, require
from janus_r1.eval.pie.folder import SIDE, TYPES, Case
from janus_r1.eval.pie.metrics import SCALES, Metrics, NotMeasured, Pair
from janus_r1.eval.protocol import check_chains, check_rounds
from janus_r1.eval.statistics import Figure, figure
from janus_r1.layout import clean

COPY, TOKENIZER = "copy", "tokenizer"
Values = dict[str, float | None]


class Editor(Protocol):
    """What is measured. Pictures are uint8 [H, W, 3], of 512 x 512 on the way in and of any square on the way out."""

    def edit(
        self, sources: list[np.ndarray], instructions: list[str], settings: Settings, first_row: int
    ) -> list[Chain]: ...

    def reconstruct(self, images: list[np.ndarray]) -> list[np.ndarray]: ...


@dataclass(frozen=True)
class PieOptions:
    """How to measure. Of ``settings``, ``rounds`` and ``early_stop`` are set by the benchmark."""

    rounds: tuple[int, ...] = (1, 3)
    """Round limits to report."""
    settings: Settings = field(default_factory=Settings)
    batch: int = 64
    """Pictures held at once."""
    baselines: bool = True
    record: dict[str, Any] = field(default_factory=dict)
    """Model, folder, weights, machine: copied into the result, nothing else."""

    def __post_init__(self) -> None:
        """Raises UserError for values that cannot be meant."""
        check_rounds(self.rounds)
        require(self.batch >= 1, "the batch must be at least 1")


def evaluate_pie(editor: Editor, cases: Sequence[Case], metrics: Metrics, options: PieOptions) -> dict[str, Any]:
    """Run the benchmark; the result is ready for JSON. Figures at its top are those of the largest round limit.

    A picture that cannot be read, edited or scored is left out of every figure and counted under ``failures``.
    A metric that cannot be had is a text, ``not measured: why``; one that is undefined on all pictures is None.

    Raises:
        UserError: when no picture could be scored.
        ValueError: when the editor breaks its contract.
    """
    settings = replace(options.settings, rounds=max(options.rounds), early_stop=True)
    bench = _Bench(editor, metrics, options, settings)
    for start in range(0, len(cases), options.batch):
        bench.measure(cases[start : start + options.batch], start)
    if not bench.kinds:
        raise UserError(f"no picture could be scored: {bench.failures[0]}")
    arms = {arm: _report(bench.kinds, values, metrics) for arm, values in bench.arms.items()}
    baselines = {name: arms.pop(name) for name in (COPY, TOKENIZER) if name in arms}
    last = arms[str(settings.rounds)]
    return {
        **{name: last[name] for name in SCALES},
        "run": {"benchmark": "pie", **_record(options), "images": len(cases), "settings": asdict(settings)},
        "cost": {"seconds": bench.seconds, "images": bench.images},
        "failures": {"images": len(bench.failures), "examples": bench.failures[:3]},
        "rounds": arms,
        "baselines": baselines or None,
    }


def _record(options: PieOptions) -> dict[str, Any]:
    return {"rounds": options.rounds, "baselines": options.baselines, **options.record}


class _Opened(NamedTuple):
    case: Case
    source: np.ndarray
    edited: np.ndarray
    instruction: str


@dataclass
class _Bench:
    """The values of every picture that could be scored, a list an arm, in the order of ``kinds``."""

    editor: Editor
    metrics: Metrics
    options: PieOptions
    settings: Settings
    arms: dict[str, list[Values]] = field(default_factory=dict)
    kinds: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    images: int = 0

    def measure(self, cases: Sequence[Case], first_row: int) -> None:
        """Edit and score; ``first_row`` is the first case's place in the whole benchmark."""
        opened = [one for case in cases if (one := self._opened(case))]
        if not opened:
            return
        chains = self._edited(opened, first_row)
        sources = [one.source for one in opened]
        rebuilt = self.editor.reconstruct(sources) if self.options.baselines else [None] * len(opened)
        for one, chain, copy in zip(opened, chains, rebuilt, strict=True):
            self._score(one, self._images(one, chain, copy))

    def _opened(self, case: Case) -> _Opened | None:
        try:
            return _Opened(case, case.picture(), case.edited(), clean(case.instruction, "instruction", "change"))
        except UserError as error:
            self.failures.append(f"{case.name}: {error}")
            return None

    def _edited(self, opened: list[_Opened], first_row: int) -> list[Chain]:
        texts = [one.instruction for one in opened]
        start = time.perf_counter()
        chains = self.editor.edit([one.source for one in opened], texts, self.settings, first_row)
        self.seconds += time.perf_counter() - start
        check_chains(chains, texts, self.settings.rounds, "picture")
        self.images += sum(len(chain.rounds) for chain in chains)
        return chains

    def _images(self, one: _Opened, chain: Chain, rebuilt: np.ndarray | None) -> dict[str, np.ndarray]:
        """The picture that each arm ends with."""
        limits = sorted(set(self.options.rounds))
        finals = {str(limit): chain.rounds[chain.final_within(limit)].pixels for limit in limits}
        return finals if rebuilt is None else {**finals, COPY: one.source, TOKENIZER: rebuilt}

    def _score(self, one: _Opened, images: dict[str, np.ndarray]) -> None:
        distinct = {id(image): image for image in images.values()}  # a chain that stopped early ends all limits alike
        try:
            values = {key: self._values(one, image) for key, image in distinct.items()}
        except Exception as error:  # whatever went wrong, this picture has no score, and a 0 would be a lie
            self.failures.append(f"{one.case.name}: {type(error).__name__}: {error}")
            return
        self.kinds.append(one.case.kind)
        for arm, image in images.items():
            self.arms.setdefault(arm, []).append(values[id(image)])

    def _values(self, one: _Opened, image: np.ndarray) -> Values:
        pair = Pair(one.source, at_512(image), one.edited, one.case.target)
        values = {name: metric(pair) for name, metric in self.metrics.items() if not isinstance(metric, NotMeasured)}
        if wrong := [
            f"{name} {value}" for name, value in values.items() if value is not None and not np.isfinite(value)
        ]:
            raise ValueError(", ".join(wrong))
        return values


def at_512(image: np.ndarray) -> np.ndarray:
    """A square picture at the protocol's size (Pillow's bicubic); one of that size stays as it is."""
    if image.shape[:2] == (SIDE, SIDE):
        return image
    return np.array(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


# ------------------------------------------------------------------------------------------ figures


def _report(kinds: list[str], values: list[Values], metrics: Metrics) -> dict[str, Any]:
    """Every metric over all pictures, then by edit type."""
    present = [kind for kind in TYPES.values() if kind in kinds]
    types = {kind: [v for k, v in zip(kinds, values, strict=True) if k == kind] for kind in present}
    return {**_figures(values, metrics), "types": {kind: _figures(mine, metrics) for kind, mine in types.items()}}


def _figures(values: list[Values], metrics: Metrics) -> dict[str, Figure | str | None]:
    return {name: _figure(name, values, metrics[name]) for name in SCALES}


def _figure(name: str, values: list[Values], metric: object) -> Figure | str | None:
    if isinstance(metric, NotMeasured):
        return str(metric)
    defined = [value for each in values if (value := each[name]) is not None]
    # These are continuous: several pictures agree to the last digit only by construction, as copies do.
    bounds = SCALES[name].bounds if len(defined) == 1 else None
    return figure(defined, np.arange(len(defined)), bounds) if defined else None
