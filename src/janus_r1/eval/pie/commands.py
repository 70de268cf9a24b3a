"""PIE-Bench's own commands: what is drawn are edits, and its measures have weights of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from janus_r1.chain import EDIT_TEMPERATURE, Settings
from janus_r1.eval.benchmark import DrawOptions
from janus_r1.eval.benchmark import draw as draw_items
from janus_r1.eval.benchmark_commands import Drawer, parse_shard, record_of, run_score, say_progress
from janus_r1.eval.pie.benchmark import Pie, PieScorer
from janus_r1.eval.pie.metrics import PIXELS
from janus_r1.eval.scorers import kind_of
from janus_r1.fields import Count, Positive


def draw(
    out: Path,
    data: Path | None = None,
    model: str = "tiny-r1-edit",
    rounds: Positive = 3,
    controls: bool = False,
    baselines: bool = True,
    guidance: float = 1.5,
    temperature: float = EDIT_TEMPERATURE,
    top_k: Count = 0,
    top_p: float = 1.0,
    final: Literal["last", "best"] = "last",
    seed: int = 0,
    shard: str = "0/1",
    limit: Positive | None = None,
    batch: Positive = 64,
    device: str = "cpu",
    dtype: str = "float32",
) -> None:
    """Edit PIE-Bench's pictures into its own folder layout; a run that was stopped goes on.

    Args:
        out: A new folder, or one that was begun with the same settings.
        data: Your copy of PIE-Bench: mapping_file.json beside annotation_images/.
        model: An embedded model, a folder or a Hub id.
        rounds: Largest number of edits; the folder holds the pictures of every smaller limit as well.
        controls: Also draw rounds - 1 independent edits a picture.
        baselines: Also write what needs no editor: the source itself, and what the image tokenizer keeps of it.
        guidance: Classifier-free guidance weight; 1 turns it off.
        temperature: Of edits.
        top_k: Image ids to sample from, 0 for all.
        top_p: Share of probability to sample from.
        final: The final round: the last drawn, or the one with the highest P(Yes).
        seed: Of all random numbers.
        shard: This process of how many: 0/4, 1/4, 2/4 and 3/4 share one folder.
        limit: Pictures at most, balanced over edit types.
        batch: Pictures edited at once.
        device: Where the model runs.
        dtype: Of the model: float32, bfloat16, auto or int8.
    """
    settings = Settings(
        rounds=rounds,
        guidance=guidance,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        final=final,
        seed=seed,
    )
    options = DrawOptions(
        settings,
        controls=controls,
        shard=parse_shard(shard),
        limit=limit,
        batch=batch,
        record=record_of(model, dtype, device),
    )
    drawer = Drawer(model, device, dtype, batch)
    trivial = {"copy": drawer.sources, "tokenizer": drawer.reconstruct} if baselines else None

    def note(line: str) -> None:
        print(f"note: {line}")

    told = say_progress("pictures edited")
    drawn = draw_items(Pie(data), out, drawer.sample, options, told, trivial=trivial, on_fault=note)
    print(f"{drawn} pictures edited into {out}")


def score(
    folder: Path,
    data: Path | None = None,
    out: Path | None = None,
    clip: str = "openai/clip-vit-large-patch14",
    dino: str = "facebook/dino-vitb8",
    device: str = "cpu",
    batch: Positive = 8,
    shard: str = "0/1",
    download: bool = False,
) -> None:
    """Score a folder of edited pictures, whoever edited them; a run that was stopped goes on.

    A measure whose weights are not there is reported as not measured; LPIPS needs pip install 'janus-r1[pie]'.

    Args:
        folder: Drawn by this command, or holding the edited pictures under the sources' own names.
        data: Your copy of PIE-Bench: mapping_file.json beside annotation_images/.
        out: The score file; by default in the folder.
        clip: CLIP, a folder or a Hub id; none skips it.
        dino: ViT of the structure distance, likewise.
        device: Where they run.
        batch: Pictures between two writings of rows.
        shard: This process of how many: 0/4, 1/4, 2/4 and 3/4 write a score file each.
        download: Fetch weights that are not on this machine.
    """
    one = Pie(data)
    from janus_r1.eval.pie.learned import learned_metrics  # torch only where it is needed

    metrics, revisions = learned_metrics(clip, dino, device, download)
    record = {"judge": "PIE-Bench's measures", "clip": clip, "dino": dino, **revisions, "device": kind_of(device)}
    scorer = PieScorer({**PIXELS, **metrics}, record, batch)
    for name, why in scorer.record["not_measured"].items():
        print(f"note: {name} {why}")
    run_score(one, folder, out, shard, scorer)
