"""The benchmarks as commands: plain functions, whose arguments are their options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from janus_r1.chain import Chain, Settings, Task
from janus_r1.errors import UserError, require
from janus_r1.eval.benchmark import Benchmark, DrawOptions
from janus_r1.eval.benchmark import draw as draw_items
from janus_r1.eval.benchmark_report import report as report_of
from janus_r1.eval.benchmark_score import Scorer, Tally, score_folder, score_rows
from janus_r1.eval.benchmark_tables import text as report_text
from janus_r1.eval.compare import boards, page, published, read_results
from janus_r1.eval.compare import text as boards_text
from janus_r1.eval.compbench import CATEGORIES, CompBench
from janus_r1.eval.dpg import Dpg
from janus_r1.eval.geneval2 import GenEval2
from janus_r1.eval.geneval_benchmark import GenEval, write_official
from janus_r1.eval.overlap import overlap as overlap_of
from janus_r1.eval.overlap import own_prompts, prompts_of
from janus_r1.eval.pie.benchmark import Pie
from janus_r1.eval.records import read_records
from janus_r1.eval.scorers import CLIP, DETECTOR, compbench_scorer, geneval_scorer, judged_scorer, kind_of
from janus_r1.eval.unigenbench import UniGenBench
from janus_r1.eval.vlm_judge import VlmJudge, endpoint_judge, local_judge
from janus_r1.eval.wise import Wise
from janus_r1.fields import Count, Positive
from janus_r1.files import check_new_files, write_json, write_text
from janus_r1.reading import read_json_object

if TYPE_CHECKING:  # torch only where it is needed
    from janus_r1.api import JanusR1

BENCHMARKS: dict[str, Callable[[Path | None], Benchmark]] = {
    "geneval": lambda data: GenEval(),
    "geneval2": GenEval2,
    "dpg": Dpg,
    "wise": Wise,
    "unigenbench": UniGenBench,
    "pie": Pie,
    **{f"compbench-{category}": partial(CompBench, category) for category in CATEGORIES},
}


def benchmark(name: str, data: Path | None = None) -> Benchmark:
    """A benchmark by its name; ``data`` is the user's copy of prompts that may not be shipped.

    Raises:
        UserError: for a name that is none, or data that is missing.
    """
    require(name in BENCHMARKS, f"unknown benchmark {name!r}: choose {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name](data)


def draw(
    name: str,
    out: Path,
    model: str = "tiny-r1-edit",
    data: Path | None = None,
    rounds: Positive = 3,
    samples: Positive | None = None,
    controls: bool = False,
    guidance: float = 1.5,
    temperature: float = 1.0,
    top_k: Count = 0,
    top_p: float = 1.0,
    final: Literal["last", "best"] = "last",
    seed: int = 0,
    shared_noise: bool = False,
    rewritten: Path | None = None,
    shard: str = "0/1",
    limit: Positive | None = None,
    batch: Positive = 64,
    device: str = "cpu",
    dtype: str = "float32",
) -> None:
    """Draw a benchmark's prompts into its own folder layout; a run that was stopped goes on.

    Args:
        name: The benchmark.
        out: A new folder, or one that was begun with the same settings.
        model: An embedded model, a folder or a Hub id.
        data: The benchmark's own files, where they may not be shipped.
        rounds: Largest number of drafts; the folder holds the images of every smaller limit as well.
        samples: Images a prompt; the protocol's number by default.
        controls: Also draw rounds - 1 independent drafts a chain, for best-of-N and blind redrawing.
        guidance: Classifier-free guidance weight; 1 turns it off.
        temperature: Of drafts.
        top_k: Image ids to sample from, 0 for all.
        top_p: Share of probability to sample from.
        final: The final round: the last drawn, or the one with the highest P(Yes).
        seed: Of all random numbers.
        shared_noise: The same random numbers for every prompt, as where the seed is set anew for each.
        rewritten: A JSON object from prompts to what is drawn instead; scores still ask for the prompt.
        shard: This process of how many: 0/4, 1/4, 2/4 and 3/4 share one folder.
        limit: Only the first so many prompts.
        batch: Images drawn at once.
        device: Where the model runs.
        dtype: Of the model: float32, bfloat16, auto or int8.
    """
    settings = Settings(
        rounds=rounds, guidance=guidance, temperature=temperature, top_k=top_k, top_p=top_p, final=final, seed=seed
    )
    texts = None if rewritten is None else _rewritten(rewritten)
    record = record_of(model, dtype, device)
    options = DrawOptions(settings, samples, controls, shared_noise, parse_shard(shard), limit, batch, texts, record)
    drawer = Drawer(model, device, dtype, batch)
    drawn = draw_items(benchmark(name, data), out, drawer.sample, options, say_progress("prompts drawn"))
    print(f"{drawn} prompts drawn into {out}")


def score_geneval(
    folder: Path,
    out: Path | None = None,
    detector: str = DETECTOR,
    clip: str = CLIP,
    device: str = "cpu",
    batch: Positive = 8,
    shard: str = "0/1",
    download: bool = False,
) -> None:
    """Score a folder in GenEval's layout, whoever drew it; a run that was stopped goes on.

    Args:
        folder: Drawn by this command, or holding 00000/metadata.jsonl beside 00000/samples/.
        out: The score file; by default in the folder.
        detector: A Mask2Former with COCO's classes: a folder or a Hub id.
        clip: The CLIP that tells colors: a folder or a Hub id.
        device: Where both run.
        batch: Images at once.
        shard: This process of how many: 0/4, 1/4, 2/4 and 3/4 write a score file each.
        download: Fetch weights from the Hub that are not on this machine.
    """
    scorer = geneval_scorer(detector, clip, device, batch, download)
    run_score(GenEval(), folder, out, shard, scorer)


def score_judged(
    name: Literal["geneval2", "dpg", "wise", "unigenbench"],
    folder: Path,
    data: Path | None = None,
    out: Path | None = None,
    url: str | None = None,
    model: str | None = None,
    api_key_env: str | None = None,
    concurrency: Positive = 16,
    extra: dict[str, Any] | None = None,
    local: str | None = None,
    device: str = "cpu",
    batch: Positive = 8,
    shard: str = "0/1",
    download: bool = False,
    official: bool = False,
) -> None:
    """Score a folder by a vision-language model: one behind an endpoint, or one in this process.

    Args:
        name: The benchmark.
        folder: Drawn by `draw`, or by anyone in the benchmark's own layout.
        data: The benchmark's own files.
        out: The score file; by default in the folder.
        url: Base address of an OpenAI-compatible server, such as http://localhost:8000/v1.
        model: The name that the server knows the judge by.
        api_key_env: The environment variable that holds the server's API key.
        concurrency: Questions asked of the server at once.
        extra: Further keys of each request, such as chat_template_kwargs.
        local: In place of a server: a folder or Hub id of a vision-language model.
        device: Where a local judge runs.
        batch: Images at once.
        shard: This process of how many: 0/4, 1/4, 2/4 and 3/4 write a score file each.
        download: Fetch weights from the Hub that are not on this machine.
        official: The published scripts' quirks: GenEval 2 counts shared tokens twice, DPG-Bench passes over the
            first question.
    """
    require((url is None) != (local is None), "name a judge: either --url with --model, or --local")
    if url is not None:
        require(bool(model), "--url needs --model, the name that the server knows the judge by")
        judge: VlmJudge = endpoint_judge(url, str(model), api_key_env, concurrency, extra)
    else:
        judge = local_judge(str(local), device, batch, download)
    run_score(_named(name, data, official), folder, out, shard, judged_scorer(name, judge, batch, official))


def score_compbench(
    category: Literal["color", "shape", "texture", "spatial", "numeracy", "non_spatial"],
    folder: Path,
    data: Path | None = None,
    out: Path | None = None,
    weights: str | None = None,
    device: str = "cpu",
    batch: Positive = 4,
    shard: str = "0/1",
    download: bool = False,
) -> None:
    """Score a folder of one T2I-CompBench category.

    Args:
        category: Of the prompts; complex and 3d_spatial are not measured here.
        folder: Drawn by `draw`, or by anyone as samples/<prompt>_<number>.png.
        data: The category's file of prompts, such as color_val.txt.
        out: The score file; by default in the folder.
        weights: A folder or Hub id: BLIP-VQA for attributes, any object detector for spatial and numeracy (which has
            no default, since the published one is not in transformers), CLIP for non_spatial.
        device: Where it runs.
        batch: Images at once.
        shard: This process of how many: 0/4, 1/4, 2/4 and 3/4 write a score file each.
        download: Fetch weights from the Hub that are not on this machine.
    """
    one = CompBench(category, data)
    run_score(one, folder, out, shard, compbench_scorer(category, weights, device, batch, download))


def report(
    name: str,
    folder: Path,
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
        name: The benchmark.
        folder: The folder that was scored.
        scores: Score files, one a shard; by default those in the folder.
        data: The benchmark's own files, where they may not be shipped.
        out: Write the report as JSON, for `compare`.
        verdicts: GenEval only: write them as the original's result file has them, for its own summary script.
        partial: Report what there is where images are missing, and call it partial.
        overwrite: Replace --out and --verdicts if they exist.
        json: Print JSON in place of tables.
    """
    check_new_files(overwrite, out, verdicts)
    paths = scores or sorted(folder.glob(f"scores-{name}*.jsonl"))
    require(bool(paths), f"no scores-{name}.jsonl in {folder}: run the benchmark's score first")
    if verdicts is not None:
        require(name == "geneval", "--verdicts are GenEval's")
        write_official(verdicts, [row for path in paths for row in score_rows(path, read_records(path)[1])])
    header = read_records(paths[0])[0]
    one = _named(name, data, bool(header.get("official")), str(header.get("judge")))
    found = report_of(one, paths, folder, partial)
    if out is not None:
        write_json(out, found)
    print(dumps(found, indent=1) if json else report_text(found))


def compare(
    results: list[Path], out: Path | None = None, cited: bool = True, overwrite: bool = False, json: bool = False
) -> None:
    """The leaderboard: results side by side with their intervals, published figures beside them.

    Args:
        results: Reports (`report --out`), GenEval result files of anyone's scorer, or imported figures.
        out: An HTML page with the tables and plots.
        cited: Also show what authors and re-measurements published.
        overwrite: Replace --out if it exists.
        json: Print JSON in place of tables.
    """
    check_new_files(overwrite, out)
    found = boards([entry for path in results for entry in read_results(path)], published() if cited else ())
    if out is not None:
        write_text(out, page(found))
    print(dumps([asdict(board) for board in found], indent=1) if json else boards_text(found))


def overlap(prompts: Path, data: list[str] | None = None, json: bool = False) -> None:
    """Which prompts of the benchmarks stand in one's own: a file of prompts, or a store of `data import`.

    Args:
        prompts: The file or the store.
        data: Files of benchmarks whose prompts are not shipped, such as dpg=DPG-Bench wise=data_verified.
        json: Print JSON in place of lines.
    """
    named: dict[str, Path | None] = {"geneval": None}
    for text in data or []:
        name, equals, path = text.partition("=")
        require(bool(equals and path), f"--data {text!r} is no NAME=FILE, such as dpg=DPG-Bench")
        named[name] = Path(path)
    sets = {name: prompts_of(benchmark(name, path)) for name, path in named.items()}
    found = overlap_of(own_prompts(prompts), sets)
    if json:
        print(dumps({name: asdict(one) for name, one in found.items()}, indent=1))
        return
    for name, one in found.items():
        shown = f", such as {one.examples[0]!r}" if one.examples else ""
        print(f"{name}: {one.prompts} of its {one.of} prompts stand in {one.rows} rows of the data{shown}")


# ----------------------------------------------------------------------------------------- parts


def run_score(one: Benchmark, folder: Path, out: Path | None, shard: str, scorer: Scorer) -> Tally:
    """Score, say what was found amiss, and how fast it went."""
    part, parts = parse_shard(shard)
    suffix = f"-{part}-of-{parts}" if parts > 1 else ""
    path = out or folder / f"scores-{one.name}{suffix}.jsonl"
    tally = score_folder(one, folder, scorer, path, shard=(part, parts), on_progress=say_progress("images scored"))
    for line in tally.complaints:
        print(f"note: {line}")
    pace = f", {tally.scored / tally.seconds:.2f} images/s" if tally.scored else ""
    print(
        f"{tally.scored} images scored in {tally.seconds:.1f} s{pace}; {tally.shared} equal to others, "
        f"{tally.known} known already, {tally.failed} failed; rows in {path}"
    )
    return tally


def _named(name: str, data: Path | None, official: bool, judge: str = "judge") -> Benchmark:
    """A benchmark whose figure bears its judge's name, where the judge is not the published one."""
    if name == "dpg":
        return Dpg(data, judge, official=official)
    if name == "unigenbench":
        return UniGenBench(data, judge)
    if name.startswith("compbench-") and name in BENCHMARKS:
        return CompBench(name.removeprefix("compbench-"), data, judge)
    return benchmark(name, data)


class Drawer:
    """A model behind a benchmark, loaded at the first call, when the folder and the settings are known to fit."""

    def __init__(self, model: str, device: str, dtype: str, batch: int) -> None:
        self.name, self.device, self.dtype, self.batch = model, device, dtype, batch
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
        from janus_r1.api import JanusR1

        if self._loaded is None:
            self._loaded = JanusR1.from_pretrained(self.name, dtype=self.dtype, device=self.device)
        return self._loaded


def record_of(model: str, dtype: str, device: str) -> dict[str, Any]:
    """What ``run.json`` says of the model and the machine."""
    from janus_r1.environment import environment  # torch only where it is needed

    return {"model": model, "dtype": dtype, "device": kind_of(device), "environment": environment()}


def parse_shard(text: str) -> tuple[int, int]:
    """ "1/4" -> (1, 4).

    Raises:
        UserError: for any other text.
    """
    part, slash, parts = text.partition("/")
    fits = slash and part.isascii() and part.isdigit() and parts.isascii() and parts.isdigit() and len(text) < 20
    if not fits or not int(part) < int(parts):
        raise UserError(f"shard {text!r} is none: use 0/4, 1/4, 2/4 and 3/4")
    return int(part), int(parts)


def _rewritten(path: Path) -> dict[str, str]:
    texts = read_json_object(path)
    if not all(isinstance(text, str) and text.strip() for text in texts.values()):
        raise UserError(f"{path} must hold a JSON object from prompts to rewritten prompts")
    return texts


def say_progress(what: str) -> Callable[[int, int], None]:
    """A line about once in twenty parts of the work."""
    told = [-1]

    def progress(done: int, total: int) -> None:
        if (part := 20 * done // max(total, 1)) > told[0]:
            told[0] = part
            print(f"{what}: {done}/{total}", flush=True)

    return progress
