"""Are images that are drawn several ids a forward those of one by one? Shares of equal ids and images, and forwards.

    python benchmarks/exactness.py                                   # float32: all must be equal
    python benchmarks/exactness.py --dtype bfloat16 --images 240     # and how many are where sums are coarse
    python benchmarks/exactness.py --dtype int8 --images 240
    python benchmarks/exactness.py --batches 8 --images 500          # a part of it: every batch size stands for itself
    python benchmarks/exactness.py --model tiny-repair --images 240  # chains that list and mend
    python benchmarks/exactness.py --model MODEL --device cuda --dtype float32

The images are spread over six ways to sample (with and without guidance, top-k, top-p, temperatures 0 to 1.2), batch
sizes, three kinds of work (drafts, edits that take their source as guess, chains of three rounds in which rows leave),
and widths by turns. Every part is drawn one by one and in windows, with the same random numbers; of chains what is said
is compared, too. Appended to benchmarks/results/exactness.jsonl, also of a run that is stopped.
"""

from __future__ import annotations

import argparse
import itertools
import random
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

import machine
from janus_r1.chain import EDIT_TEMPERATURE, Settings, Source, Task
from janus_r1.engine.decoder import Decoder
from janus_r1.engine.sampling import DRAW, Sampling, uniforms
from janus_r1.environment import environment
from janus_r1.introspect import introspect
from janus_r1.layout import Lead
from janus_r1.model.janus import Janus
from janus_r1.model.loading import load
from janus_r1.worlds.shapes.prompts import split

RESULTS = Path(__file__).parent / "results" / "exactness.jsonl"
WAYS = (
    Sampling(1.5),
    Sampling(),
    Sampling(5.0, top_k=256),
    Sampling(3.0, temperature=0.7, top_p=0.9),
    Sampling(1.5, temperature=0.0),
    Sampling(2.0, temperature=1.2),
)
WIDTHS = (3, 4, 8, 16)
EDITS = ("make the circle red", "remove the star", "add a small green ring", "move the square left of the cross")
ROUNDS = 3


class Tally:
    """Equal ids and images of one kind of work at one batch size, and the forwards of both ways."""

    def __init__(self) -> None:
        self.images = self.equal_images = self.ids = self.equal_ids = self.texts = self.equal_texts = 0
        self.forwards: list[tuple[int, int]] = []

    def add(self, one: torch.Tensor, other: torch.Tensor) -> None:
        same = one == other
        self.images += len(same)
        self.equal_images += int(same.all(1).sum())
        self.ids += same.numel()
        self.equal_ids += int(same.sum())

    def row(self, kind: str, batch: int) -> dict[str, Any]:
        forwards = [float(np.mean(counts)) for counts in zip(*self.forwards, strict=True)]
        counted = {"one_by_one": forwards[0], "windows": forwards[1]} if forwards else None
        return {
            "kind": kind,
            "batch": batch,
            "images": self.images,
            "equal_images": self.equal_images / self.images,
            "equal_ids": self.equal_ids / self.ids,
            "equal_texts": self.equal_texts / self.texts if self.texts else None,
            "forwards": counted,
        }


def drawn_twice(
    decoder: Decoder, leads: list[Lead], how: Sampling, seed: int, width: int, guess: torch.Tensor | None, tally: Tally
) -> torch.Tensor:
    """Ids one by one, compared with those in windows."""
    guided = how.guidance > 1
    found, forwards = [], []
    for used in (1, width):
        stream = decoder.open([x.drawing for x in leads], [x.unconditional for x in leads] if guided else None)
        numbers = uniforms(seed, list(range(len(leads))), 0, DRAW, decoder.model.image_tokens)
        before = decoder.forwards
        settings = (how.guidance, how.temperature, how.top_k, how.top_p)
        found.append(decoder.draw(stream, numbers, *settings, width=used, guess=guess)[0].cpu())
        forwards.append(decoder.forwards - before)
    tally.add(*found)
    tally.forwards.append((forwards[0], forwards[1]))
    return found[0]


def chains(model: Janus, prompts: list[str], how: Sampling, seed: int, width: int, tally: Tally) -> None:
    """Chains of some rounds, rows leaving as they are accepted: every draft of both."""
    settings = Settings(
        rounds=ROUNDS,
        guidance=how.guidance,
        temperature=how.temperature,
        top_k=how.top_k,
        top_p=how.top_p,
        text_temperature=how.temperature,
        max_reason_tokens=24,
        seed=seed,
    )
    tasks = [Task(prompt) for prompt in prompts]
    pairs = zip(
        introspect(model, tasks, settings, window=1), introspect(model, tasks, settings, window=width), strict=True
    )
    for one, other in pairs:
        for index in range(max(len(one.rounds), len(other.rounds))):
            ids = [c.rounds[index].ids if index < len(c.rounds) else (-1,) * model.image_tokens for c in (one, other)]
            tally.add(torch.tensor(ids[:1]), torch.tensor(ids[1:]))
            said = [c.rounds[index].verdict if index < len(c.rounds) else None for c in (one, other)]
            tally.texts += 1
            tally.equal_texts += len({(v.list_ids, v.ids) if v else None for v in said}) == 1


def compare(model: Janus, images: int, batches: list[int], rows: list[dict[str, Any]], seed: int) -> None:
    """A row for every kind of work and batch size, as soon as it is known."""
    decoder, texts = Decoder(model), [prompt.text for prompt in split("test")]
    share = -(-images // (3 * len(batches)))
    for batch in batches:
        chance, widths = random.Random(f"{seed} {batch}"), itertools.cycle(WIDTHS)
        tallies = {"draft": Tally(), "edit": Tally(), "chain": Tally()}
        for number, how in zip(itertools.count(), itertools.cycle(WAYS)):
            if tallies["draft"].images >= share:
                break
            prompts, width = chance.choices(texts, k=batch), next(widths)
            leads = [model.layout.opening(prompt) for prompt in prompts]
            ids = drawn_twice(decoder, leads, how, number, width, None, tallies["draft"])
            pixels = model.decode_image(ids.to(model.device))
            sources = [Source(tuple(row), image) for row, image in zip(ids.tolist(), pixels, strict=True)]
            asked = [model.layout.opening(chance.choice(EDITS), source) for source in sources]
            cooler = Sampling(how.guidance, min(how.temperature, EDIT_TEMPERATURE), how.top_k, how.top_p)
            drawn_twice(decoder, asked, cooler, number, width, ids, tallies["edit"])
            if tallies["chain"].images < share:
                chains(model, prompts, how, number, width, tallies["chain"])
        for kind, tally in tallies.items():
            rows.append(tally.row(kind, batch))
            print(rows[-1], flush=True)


def options_from(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-sft")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "int8"))
    parser.add_argument("--images", type=int, default=2000, help="that are drawn in both ways, all kinds together")
    parser.add_argument("--batches", default="1,2,4,8")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-save", action="store_true", help="do not append to the results")
    return parser.parse_args(argv)


def main() -> None:
    options = options_from()
    model = load(options.model, options.dtype, options.device)
    kept = {key: value for key, value in vars(options).items() if key != "no_save"}
    record = {"date": str(date.today()), **kept, "machine": machine.name(options.device), "environment": environment()}
    with machine.saving(RESULTS, record, save=not options.no_save) as rows:
        compare(model, options.images, [int(batch) for batch in options.batches.split(",")], rows, options.seed)


if __name__ == "__main__":
    main()
