"""Build candidates in a world: the model's own drafts and renderings, scored by the verifier.

The world plays three roles of the paper: the renderer is FLUX (images that match), the base model
is Janus-Pro (drafts that often do not), the verifier is InternVL (score and reason).
"""

from __future__ import annotations

import itertools
import random
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch

from janus_r1.data.candidates import Candidate, write_part
from janus_r1.engine.decoder import Decoder
from janus_r1.engine.sampling import DRAW, uniforms
from janus_r1.errors import UserError
from janus_r1.fields import AtLeast0, Checked, Count, Positive, Range
from janus_r1.files import write_json
from janus_r1.introspect import first_drafts
from janus_r1.model.janus import Janus, from_uint8
from janus_r1.model.loading import load
from janus_r1.progress import reporter
from janus_r1.reading import read_json_object
from janus_r1.worlds import base as worlds
from janus_r1.worlds.base import World, WorldTask

RECIPE = "recipe.json"
MAY_CHANGE = {"out", "prompts", "device", "threads"}  # of a build that is gone on with


@dataclass
class BuildRecipe(Checked):
    """Recipe of ``janus-r1 data build``."""

    out: str = "runs/candidates"
    world: str = worlds.DEFAULT
    """Where prompts come from and what judges the drafts: shapes, a Python file with a world of your own, or
    module:name."""
    model: str = "runs/base/model"
    """Model whose drafts are judged."""
    prompts: Positive = 4096
    """Training prompts (N in the paper)."""
    families: list[str] = field(default_factory=list)
    """Families of the prompts; empty: all, in the proportions of training."""
    temperatures: list[AtLeast0] = field(default_factory=lambda: [0.8, 1.0, 1.0, 1.2])
    """One draft of every prompt at each of these."""
    guidance: Annotated[float, Range(ge=1)] = 1.5
    renderings: Count = 2
    """Renderings of every prompt."""
    near_misses: Count = 2
    """Renderings of every prompt changed in one fact: clean pictures that are wrong, so that a judge
    cannot take clean for right."""
    seed: int = 0
    part: Positive = 128
    """Prompts a part; what a killed build loses at most."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the drawing model; bfloat16 is twice as fast on a CPU that multiplies it."""
    device: str = "cpu"
    """Of the drawing model: cpu, cuda, cuda:1, ..."""
    threads: Count = 0
    """CPU threads; 0 leaves torch's default."""


def build(recipe: BuildRecipe, resume: bool = False) -> Path:
    """Draw and judge many candidates, the raw material of SFT; with ``resume`` parts that exist are kept.

    Examples:
        janus-r1 data build --config shapes/candidates
        janus-r1 data build --model tiny-base --prompts 256 --out runs/few

    Raises:
        UserError: if the folder already holds parts and ``resume`` is false or they were built otherwise, or for a
            family that is none.
    """
    world = worlds.world(recipe.world)
    out, prompts = Path(recipe.out), _prompts(world, recipe)
    _begin(out, recipe, resume)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    model = load(recipe.model, recipe.dtype, recipe.device)
    decoder = Decoder(model)
    missing = [i for i in range(0, len(prompts), recipe.part) if not _folder(out, i, recipe).exists()]
    progress = reporter(out.name, 0, len(missing), "part")
    for done, start in enumerate(missing, 1):
        candidates, images = _part(world, decoder, prompts[start : start + recipe.part], start, recipe)
        write_part(_folder(out, start, recipe), candidates, images)
        progress.update(done, {"drafts_right": _drafts_right(candidates)})
    progress.stop()
    return out


def _begin(out: Path, recipe: BuildRecipe, resume: bool) -> None:
    """Parts of two recipes would be mixed in silence: what they are built by stands beside them."""
    begun, record = any(out.glob("part_*")), out / RECIPE
    if begun and not resume:
        raise UserError(f"{out} already holds candidates: pass --resume to continue, or another --out")
    own = {key: value for key, value in asdict(recipe).items() if key not in MAY_CHANGE}
    before = read_json_object(record) if begun and record.exists() else own
    if changed := [key for key in own if before.get(key) != own[key]]:
        raise UserError(f"{out} was begun with another {changed[0]}: repeat the recipe, or choose another --out")
    write_json(record, own)


def _prompts(world: World, recipe: BuildRecipe) -> list[WorldTask]:
    if unknown := set(recipe.families) - set(world.families()):
        raise UserError(f"no family {', '.join(sorted(unknown))}: choose from {', '.join(world.families())}")
    stream = world.stream(random.Random(recipe.seed + 77), families=recipe.families)
    return list(itertools.islice(stream, recipe.prompts))


def _folder(out: Path, start: int, recipe: BuildRecipe) -> Path:
    return out / f"part_{start // recipe.part:05d}"


def _part(
    world: World, decoder: Decoder, prompts: list[WorldTask], first_id: int, recipe: BuildRecipe
) -> tuple[list[Candidate], np.ndarray]:
    sources = [(f"draft@{t}", _drafts(decoder, prompts, first_id, k, t, recipe)) for k, t in _numbered(recipe)]
    rng = random.Random(f"{recipe.seed} {first_id}")
    sources += [("rendering", _coded(decoder.model, world.render(prompts, rng))) for _ in range(recipe.renderings)]
    sources += [("near miss", _coded(decoder.model, world.spoil(prompts, rng))) for _ in range(recipe.near_misses)]
    candidates, images = [], []
    for source, ids in sources:
        pictures = decoder.model.decode_image(ids)
        for offset, (prompt, picture, row) in enumerate(zip(prompts, pictures, ids.tolist(), strict=True)):
            judged = world.check(prompt, picture)
            number = first_id + offset
            candidates.append(Candidate(number, prompt.prompt, tuple(row), judged.score, judged.verdict, source))
            images.append(picture)
    return candidates, np.stack(images)


def _numbered(recipe: BuildRecipe) -> list[tuple[int, float]]:
    return list(enumerate(recipe.temperatures))


def _drafts(decoder: Decoder, prompts: list[WorldTask], first_id: int, k: int, temperature: float, recipe: BuildRecipe):
    openings = [decoder.model.layout.opening(prompt.prompt) for prompt in prompts]
    rows = list(range(first_id, first_id + len(prompts)))
    uniform = uniforms(recipe.seed + 77, rows, k, DRAW, decoder.model.image_tokens)
    return first_drafts(decoder, openings, uniform, recipe.guidance, temperature)


def _coded(model: Janus, pictures: list[np.ndarray]) -> torch.Tensor:
    """Pictures as VQ ids [n, S]."""
    return model.encode_image(from_uint8(np.stack(pictures)).to(model.device))


def _drafts_right(candidates: list[Candidate]) -> float:
    drafts = [c for c in candidates if c.is_draft]
    return sum(c.p_yes == 1.0 for c in drafts) / len(drafts) if drafts else float("nan")
