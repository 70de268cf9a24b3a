"""``janus-r1 eval NAME draw``, ``score`` and ``report``.

A benchmark's prompts are drawn into its own folder layout, the folder is scored, the scores are reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from janus_r1.chain import EDIT_TEMPERATURE, Chain, Settings, Task
from janus_r1.commands.model import ModelOptions, load_model
from janus_r1.environment import environment
from janus_r1.errors import UserError, require
from janus_r1.eval.benchmark import Benchmark, DrawOptions, Trivial
from janus_r1.eval.benchmark import draw as draw_items
from janus_r1.eval.benchmark_report import report as report_of
from janus_r1.eval.benchmark_report import text as report_text
from janus_r1.eval.benchmark_score import Scorer, Tally, kind_of, score_folder, score_rows
from janus_r1.eval.compbench import CATEGORIES, CompBench
from janus_r1.eval.dpg import Dpg, DpgScorer
from janus_r1.eval.geneval2 import GenEval2, SoftTifa
from janus_r1.eval.geneval_benchmark import CLIP, DETECTOR, GenEval, geneval_scorer, write_official
from janus_r1.eval.pie import PIXELS, Pie, PieScorer
from janus_r1.eval.records import read_records
from janus_r1.eval.unigenbench import UniGenBench, UniGenScorer
from janus_r1.eval.vlm_judge import EndpointJudge, VlmJudge, local_judge
from janus_r1.eval.wise import Wise, WiseScorer
from janus_r1.fields import Checked, Positive
from janus_r1.files import check_new_files, write_json
from janus_r1.reading import read_json_object

if TYPE_CHECKING:  # torch only where it is needed
    from janus_r1.api import JanusR1

BENCHMARKS: dict[
    str, Callable[[Path | None, str, bool], Benchmark]
] = {  # of the data, the judge's name, and its quirks
    "geneval": lambda data, judge, official: GenEval(),
    "geneval2": lambda data, judge, official: GenEval2(data),
    "dpg": lambda data, judge, official: Dpg(data, judge, official=official),
    "wise": lambda data, judge, official: Wise(data),
    "unigenbench": lambda data, judge, official: UniGenBench(data, judge),
    "pie": lambda data, judge, official: Pie(data),
    **{
        f"compbench-{name}": lambda data, judge, official, name=name: CompBench(name, data, judge)  # type: ignore[misc]
        for name in CATEGORIES
    },
}
JUDGED: dict[str, Callable[[VlmJudge, int, bool], Scorer]] = {
    "geneval2": SoftTifa,
    "dpg": DpgScorer,
    "wise": lambda judge, batch, official: WiseScorer(judge, batch),
    "unigenbench": lambda judge, batch, official: UniGenScorer(judge, batch),
}


@dataclass(frozen=True)
class Scoring(Checked):
    """Where scores go, and how they are made."""

    out: Path | None = None
    """The score file; by default in the folder."""
    device: str = "cpu"
    """Where a scorer runs that is on this machine."""
    batch: Positive = 8
    """Images at once."""
    shard: str = "0/1"
    """This process of how many: 0/4, 1/4, 2/4 and 3/4 write a score file each."""
    download: bool = False
    """Fetch weights from the Hub that are not on this machine."""


DRAWING = Settings()
EDITING = Settings(temperature=EDIT_TEMPERATURE)
ANY_MODEL = ModelOptions()
AS_EVER = Scoring()
FEW = Scoring(batch=4)


def benchmark(name: str, data: Path | None = None, judge: str = "judge", official: bool = False) -> Benchmark:
    """A benchmark by its name. ``data`` is the user's copy of what may not be shipped; a figure bears the name of its
    ``judge`` where that is not the published one.

    Raises:
        UserError: for a name that is none, or data that is missing.
    """
    require(name in BENCHMARKS, f"unknown benchmark {name!r}: choose {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name](data, judge, official)


# ------------------------------------------------------------------------------------------ draw


def draw(
    name: str,
    out: Path,
    *,
    data: Path | None = None,
    samples: Positive | None = None,
    controls: bool = False,
    shared_noise: bool = False,
    rewritten: Path | None = None,
    shard: str = "0/1",
    limit: Positive | None = None,
    batch: Positive = 64,
    settings: Settings = DRAWING,
    using: ModelOptions = ANY_MODEL,
) -> None:
    """Draw a benchmark's prompts into its own folder layout; a run that was stopped goes on.

    The folder holds the images of every number of rounds up to --rounds.

    Args:
        out: A new folder, or one that was begun with the same settings
        data: The benchmark's own files, where they may not be shipped
        samples: Images a prompt; the protocol's number by default
        controls: Also draw rounds - 1 independent drafts a chain, for best-of-N and blind redrawing
        shared_noise: The same random numbers for every prompt, as where the seed is set anew for each
        rewritten: A JSON object from prompts to what is drawn instead; scores still ask for the prompt
        shard: This process of how many: 0/4, 1/4, 2/4 and 3/4 share one folder
        limit: Only the first so many prompts
        batch: Images drawn at once
    """
    texts = None if rewritten is None else _rewritten(rewritten)
    part, record = parse_shard(shard), record_of(using)
    options = DrawOptions(settings, samples, controls, shared_noise, part, limit, batch, texts, record)
    drawn = draw_items(benchmark(name, data), out, Drawer(using, batch).sample, options, say_progress("prompts drawn"))
    print(f"{drawn} prompts drawn into {out}")


def edit(
    out: Path,
    *,
    data: Path | None = None,
    controls: bool = False,
    baselines: bool = True,
    shard: str = "0/1",
    limit: Positive | None = None,
    batch: Positive = 64,
    settings: Settings = EDITING,
    using: ModelOptions = ANY_MODEL,
) -> None:
    """Edit PIE-Bench's pictures into its own folder layout; a run that was stopped goes on.

    The folder holds the pictures of every number of rounds up to --rounds.

    Args:
        out: A new folder, or one that was begun with the same settings
        data: Your copy of PIE-Bench: mapping_file.json beside annotation_images/
        controls: Also draw rounds - 1 independent edits a picture
        baselines: Also write what needs no editor: the source itself, and what the image tokenizer keeps of it
        shard: This process of how many: 0/4, 1/4, 2/4 and 3/4 share one folder
        limit: Pictures at most, balanced over edit types
        batch: Pictures edited at once
    """
    drawer = Drawer(using, batch)
    trivial: dict[str, Trivial] = {"copy": drawer.sources, "tokenizer": drawer.reconstruct} if baselines else {}
    options = DrawOptions(
        settings, controls=controls, shard=parse_shard(shard), limit=limit, batch=batch, record=record_of(using)
    )
    told = say_progress("pictures edited")
    drawn = draw_items(Pie(data), out, drawer.sample, options, told, trivial=trivial or None, on_fault=_note)
    print(f"{drawn} pictures edited into {out}")


class Drawer:
    """A model behind a benchmark, loaded at the first call, when the folder and the settings are known to fit."""

    def __init__(self, using: ModelOptions, batch: int) -> None:
        self.using, self.batch = using, batch
        self._loaded: JanusR1 | None = None

    def sample(self, tasks: list[Task], settings: Settings, first_row: int) -> list[Chain]:
        from janus_r1.introspect import introspect

        return introspect(self._model().model, tasks, settings, max_batch=self.batch, first_row=first_row)

    def reconstruct(self, tasks: list[Task]) -> list[np.ndarray]:
        """What the image tokenizer keeps of sources."""
        return self._model().reconstruct(self.sources(tasks))

    @staticmethod
    def sources(tasks: list[Task]) -> list[np.ndarray]:
        return [task.source for task in tasks if task.source is not None]

    def _model(self) -> JanusR1:
        self._loaded = self._loaded or load_model(self.using)
        return self._loaded


def record_of(using: ModelOptions) -> dict[str, Any]:
    """What ``run.json`` says of the model and the machine."""
    dtype = using.dtype if using.kv == "auto" else f"{using.dtype}, {using.kv} cache"
    return {"model": using.model, "dtype": dtype, "device": kind_of(using.device), "environment": environment()}


def _rewritten(path: Path) -> dict[str, str]:
    texts = read_json_object(path)
    if not all(isinstance(text, str) and text.strip() for text in texts.values()):
        raise UserError(f"{path} must hold a JSON object from prompts to rewritten prompts")
    return texts


# ----------------------------------------------------------------------------------------- score


def score_geneval(folder: Path, *, detector: str = DETECTOR, clip: str = CLIP, to: Scoring = AS_EVER) -> None:
    """Score a folder in GenEval's layout, whoever drew it; a run that was stopped goes on.

    Args:
        folder: Drawn by this command, or holding 00000/metadata.jsonl beside 00000/samples/
        detector: A Mask2Former with COCO's classes: a folder or a Hub id
        clip: The CLIP that tells colors: a folder or a Hub id
    """
    _score(GenEval(), folder, to, geneval_scorer(detector, clip, to.device, to.batch, to.download))


def score_judged(
    name: Literal["geneval2", "dpg", "wise", "unigenbench"],
    folder: Path,
    *,
    data: Path | None = None,
    url: str | None = None,
    model: str | None = None,
    api_key_env: str | None = None,
    concurrency: Positive = 16,
    extra: dict[str, Any] | None = None,
    local: str | None = None,
    official: bool = False,
    to: Scoring = AS_EVER,
) -> None:
    """Score a folder by a vision-language model: one behind an endpoint, or one in this process.

    Args:
        folder: Drawn by `draw`, or by anyone in the benchmark's own layout
        data: The benchmark's own files
        url: Base address of an OpenAI-compatible server, such as http://localhost:8000/v1
        model: The name that the server knows the judge by
        api_key_env: The environment variable that holds the server's API key
        concurrency: Questions asked of the server at once
        extra: Further keys of each request, such as chat_template_kwargs
        local: In place of a server: a folder or Hub id of a vision-language model
        official: The published scripts' quirks: GenEval 2 counts shared tokens twice, DPG-Bench passes over the
            first question
    """
    require((url is None) != (local is None), "name a judge: either --url with --model, or --local")
    if url is not None:
        require(bool(model), "--url needs --model, the name that the server knows the judge by")
        judge: VlmJudge = EndpointJudge(url, str(model), api_key_env, concurrency, extra)
    else:
        judge = local_judge(str(local), to.device, to.batch, to.download)
    _score(benchmark(name, data, official=official), folder, to, JUDGED[name](judge, to.batch, official))


def score_compbench(
    category: Literal["color", "shape", "texture", "spatial", "numeracy", "non_spatial"],
    folder: Path,
    *,
    data: Path | None = None,
    weights: str | None = None,
    to: Scoring = FEW,
) -> None:
    """Score a folder of one T2I-CompBench category.

    Args:
        category: Of the prompts; complex and 3d_spatial are not measured here
        folder: Drawn by `draw`, or by anyone as samples/<prompt>_<number>.png
        data: The category's file of prompts, such as color_val.txt
        weights: A folder or Hub id: BLIP-VQA for attributes, any object detector for spatial and numeracy (which has
            no default, since the published one is not in transformers), CLIP for non_spatial
    """
    one = CompBench(category, data)
    from janus_r1.eval.compbench_scorers import scorer  # torch only where it is needed

    _score(one, folder, to, scorer(category, weights, to.device, to.batch, to.download))


def score_pie(
    folder: Path,
    *,
    data: Path | None = None,
    clip: str = "openai/clip-vit-large-patch14",
    dino: str = "facebook/dino-vitb8",
    to: Scoring = AS_EVER,
) -> None:
    """Score a folder of edited pictures, whoever edited them; a run that was stopped goes on.

    A measure whose weights are not there is reported as not measured; LPIPS needs pip install 'janus-r1[pie]'.

    Args:
        folder: Drawn by this command, or holding the edited pictures under the sources' own names
        data: Your copy of PIE-Bench: mapping_file.json beside annotation_images/
        clip: CLIP, a folder or a Hub id; none skips it
        dino: ViT of the structure distance, likewise
    """
    one = Pie(data)
    from janus_r1.eval.pie_learned import learned_metrics  # torch only where it is needed

    metrics, revisions = learned_metrics(clip, dino, to.device, to.download)
    record = {"judge": "PIE-Bench's measures", "clip": clip, "dino": dino, **revisions, "device": kind_of(to.device)}
    scorer = PieScorer({**PIXELS, **metrics}, record, to.batch)
    for name, why in scorer.record["not_measured"].items():
        _note(f"{name} {why}")
    _score(one, folder, to, scorer)


def _score(one: Benchmark, folder: Path, to: Scoring, scorer: Scorer) -> Tally:
    """Score, say what was found amiss, and how fast it went."""
    part, parts = parse_shard(to.shard)
    suffix = f"-{part}-of-{parts}" if parts > 1 else ""
    path = to.out or folder / f"scores-{one.name}{suffix}.jsonl"
    tally = score_folder(one, folder, scorer, path, shard=(part, parts), on_progress=say_progress("images scored"))
    for line in tally.complaints:
        _note(line)
    pace = f", {tally.scored / tally.seconds:.2f} images/s" if tally.scored else ""
    print(
        f"{tally.scored} images scored in {tally.seconds:.1f} s{pace}; {tally.shared} equal to others, "
        f"{tally.known} known already, {tally.failed} failed; rows in {path}"
    )
    return tally


# ---------------------------------------------------------------------------------------- report


def report(
    name: str,
    folder: Path,
    *,
    scores: list[Path] | None = None,
    data: Path | None = None,
    out: Path | None = None,
    verdicts: Path | None = None,
    partial: bool = False,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Report a scored folder: headline, parts and rounds with 95 % intervals over prompts.

    Args:
        folder: The folder that was scored
        scores: Score files, one a shard; by default those in the folder
        data: The benchmark's own files, where they may not be shipped
        out: Write the report as JSON, for `compare`
        verdicts: GenEval only: write them as the original's result file has them, for its own summary script
        partial: Report what there is where images are missing, and call it partial
        overwrite: Replace --out and --verdicts if they exist
        json: Print JSON in place of tables
    """
    check_new_files(overwrite, out, verdicts)
    paths = scores or sorted(folder.glob(f"scores-{name}*.jsonl"))
    require(bool(paths), f"no scores-{name}.jsonl in {folder}: run the benchmark's score first")
    if verdicts is not None:
        require(name == "geneval", "--verdicts are GenEval's")
        write_official(verdicts, [row for path in paths for row in score_rows(path, read_records(path)[1])])
    header = read_records(paths[0])[0]
    one = benchmark(name, data, str(header.get("judge")), bool(header.get("official")))
    found = report_of(one, paths, folder, partial)
    if out is not None:
        write_json(out, found)
    print(dumps(found, indent=1) if json else report_text(found))


# ----------------------------------------------------------------------------------------- parts


def parse_shard(text: str) -> tuple[int, int]:
    """ "1/4" -> (1, 4).

    Raises:
        UserError: for any other text
    """
    part, slash, parts = text.partition("/")
    fits = slash and part.isascii() and part.isdigit() and parts.isascii() and parts.isdigit() and len(text) < 20
    if not fits or not int(part) < int(parts):
        raise UserError(f"shard {text!r} is none: use 0/4, 1/4, 2/4 and 3/4")
    return int(part), int(parts)


def say_progress(what: str) -> Callable[[int, int], None]:
    """A line about once in twenty parts of the work."""
    told = [-1]

    def progress(done: int, total: int) -> None:
        if (part := 20 * done // max(total, 1)) > told[0]:
            told[0] = part
            print(f"{what}: {done}/{total}", flush=True)

    return progress


def _note(line: str) -> None:
    print(f"note: {line}")
