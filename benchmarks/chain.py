"""Seconds a chain of up to three rounds: introspect beside the structure of the official code.

    python benchmarks/chain.py --preset tiny --batch 4,16 --accept 0.5,0.5
    python benchmarks/chain.py --preset 7b --device cuda --dtype bfloat16 --batch 16,64
    python benchmarks/chain.py --model tiny-repair --repairs 20       # what a chain of mended drafts costs in forwards

* ours      janus_r1.introspect: streams that only grow, prompts prefilled once, accepted rows leave
* official  every round is stages of their own, each prefilled from nothing (draw; judge; redraw from the
            re-encoded image), caches grow by concatenation, every row is redrawn whether accepted or not

Both do the same rounds on the same prompts with the same guidance, reason length and ``history last`` (all
that the official code can). Verdicts of random weights mean nothing, so both arms compute and sample them
in full and then obey ``--accept``: after round i that share of the rows still going (the first ones, rounded)
says Yes, the others No. In the official arm a Yes changes nothing, since it redraws every row.

With --repairs dense prompts are drawn, and each draft is mended as the truth says, which takes the draft as its guess
(janus_r1.engine.window): forwards of chains of so many rounds, relative to those of their first drafts. A model of the
format ``repair`` also looks at each draft by itself: forwards and processor seconds of its own lists and verdicts.

Appended to benchmarks/results/chain.jsonl. A tool of one process; the arms take turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # before torch: short waits, see docs/log.md

import torch
from transformers.cache_utils import DynamicCache

import machine
from decode import random_janus
from janus_r1 import introspect as algorithm
from janus_r1.chain import Settings, Source, Task
from janus_r1.engine.decoder import Decoder
from janus_r1.engine.sampling import DRAW, uniforms
from janus_r1.environment import environment
from janus_r1.model.janus import Janus, from_uint8
from janus_r1.model.loading import DTYPES, load
from janus_r1.model.presets import PRESETS
from janus_r1.segments import Drawn, Row, Seen, Text, row_length
from janus_r1.worlds.shapes.findings import look_and_say
from janus_r1.worlds.shapes.prompts import split
from janus_r1.worlds.shapes.verifier import find_objects

RESULTS = Path(__file__).parent / "results" / "chain.jsonl"
Schedule = tuple[float, ...]


# ----------------------------------------------------------------------------------------------- ours


class Counting(Decoder):
    """Counts the tokens that are prefilled: whatever is fed, in both halves of a guided stream."""

    prefilled = 0

    def feed(self, stream, rows: list[Row], unconditional: list[Row] | None = None) -> None:
        tokens = sum(map(row_length, rows))
        Counting.prefilled += tokens * (2 if stream.guided else 1)
        super().feed(stream, rows, unconditional)


def ours(model: Janus, prompts: list[str], settings: Settings, accept: Schedule) -> tuple[int, int]:
    """Images drawn and tokens prefilled."""
    say = algorithm.say_verdicts

    def obey(decoder, stream, settings, places, window=None):
        verdicts = say(decoder, stream, settings, places, window)
        yes = accepted(accept, places[0].round, len(places))
        return [replace(verdict, accepted=i < yes) for i, verdict in enumerate(verdicts)]

    Counting.prefilled = 0
    algorithm.say_verdicts, algorithm.Decoder = obey, Counting
    try:
        chains = algorithm.introspect(model, [Task(prompt) for prompt in prompts], settings, max_batch=len(prompts))
    finally:
        algorithm.say_verdicts, algorithm.Decoder = say, Decoder
    return sum(len(chain.rounds) for chain in chains), Counting.prefilled


def accepted(accept: Schedule, round_index: int, rows: int) -> int:
    """How many of the rows still going say Yes after this round."""
    return round(rows * accept[round_index]) if round_index < len(accept) else 0


# ------------------------------------------------------------------------------------------- official


class Official:
    """The official structure over our own modules, so that only the structure differs."""

    def __init__(self, model: Janus, prompts: list[str], settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.prompts = [model.layout.prompt(prompt) for prompt in prompts]
        self.images = self.prefilled = 0

    @torch.inference_mode()
    def run(self) -> tuple[int, int]:
        """Images drawn and tokens prefilled."""
        pixels = self.draw([() for _ in self.prompts])
        for _ in range(self.settings.rounds - 1):
            pixels = self.draw(self.redraw_contexts(pixels, self.judge(pixels)))
        self.judge(pixels)
        return self.images, self.prefilled

    def draw(self, contexts: list[Row]):
        """Conditional and unconditional rows from nothing, one growing cache; pixels of every row."""
        pairs = zip(self.prompts, contexts, strict=True)
        rows = [(start, *rest) for p, rest in pairs for start in (p, self.model.layout.unconditional(p))]
        hidden, cache, mask = self.prefill(rows)
        drawn = []
        for _ in range(self.model.image_tokens):
            logits = self.model.image_logits(hidden)
            guided = logits[1::2] + self.settings.guidance * (logits[0::2] - logits[1::2])
            drawn.append(torch.multinomial(guided.float().softmax(-1), 1))
            embeddings = self.model.embed_drawn(drawn[-1].repeat_interleave(2, dim=0))
            hidden, mask = self.advance(cache, mask, embeddings)
        self.images += len(self.prompts)
        return self.model.decode_image(torch.cat(drawn, dim=1))

    def judge(self, pixels) -> list[tuple[int, ...]]:
        """Prompt, image as seen and self-check from nothing; Yes or No, then a sampled reason."""
        layout, tokens = self.model.layout, self.model.image_tokens
        rows = [(p, Seen(image, tokens), layout.self_check) for p, image in zip(self.prompts, pixels, strict=True)]
        hidden, cache, mask = self.prefill(rows)
        words = torch.tensor([layout.special.yes, layout.special.no], device=self.model.device)
        chosen = words[torch.multinomial(self.model.text_logits(hidden)[:, words].float().softmax(-1), 1)]
        said = [chosen]
        for _ in range(self.settings.max_reason_tokens - 1):
            hidden, mask = self.advance(cache, mask, self.model.embed_text(chosen))
            best = self.model.text_logits(hidden).float().topk(self.settings.text_top_k)
            chosen = best.indices.gather(1, torch.multinomial(best.values.softmax(-1), 1))
            said.append(chosen)
        return [tuple(ids) for ids in torch.cat(said, dim=1).tolist()]

    def redraw_contexts(self, pixels, reasons: list[tuple[int, ...]]) -> list[Row]:
        """The drawn image encoded again from its pixels, self-check, verdict and regeneration string."""
        layout = self.model.layout
        ids = self.model.encode_image(from_uint8(pixels).to(self.model.device)).tolist()
        return [
            (Drawn(tuple(i)), layout.self_check, Text((*reason, layout.special.eos)), layout.regenerate)
            for i, reason in zip(ids, reasons, strict=True)
        ]

    def prefill(self, rows: list[Row]) -> tuple[torch.Tensor, DynamicCache, torch.Tensor]:
        """Left-padded rows through an empty cache: last hidden states, cache, mask."""
        lengths = [row_length(row) for row in rows]
        self.prefilled += sum(lengths)
        embeddings, longest = self.model.embed_rows(rows), max(lengths)
        padded = torch.stack([e.roll(longest - n, 0) for e, n in zip(embeddings, lengths, strict=True)])
        mask = torch.tensor([[0] * (longest - n) + [1] * n for n in lengths], device=padded.device)
        cache = DynamicCache()
        return self.forward(cache, mask, padded), cache, mask

    def advance(self, cache: DynamicCache, mask: torch.Tensor, embeddings: torch.Tensor):
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        return self.forward(cache, mask, embeddings), mask

    def forward(self, cache: DynamicCache, mask: torch.Tensor, embeddings: torch.Tensor) -> torch.Tensor:
        outputs = self.model.core.model.language_model(
            inputs_embeds=embeddings.to(self.model.dtype), attention_mask=mask, past_key_values=cache, use_cache=True
        )
        return outputs.last_hidden_state[:, -1]


# ---------------------------------------------------------------------------------------- measurement


def measure(model: Janus, batch: int, settings: Settings, accept: Schedule, repeats: int) -> dict[str, Any]:
    """Per arm: sorted seconds, images drawn, tokens prefilled, peak bytes."""
    texts = [prompt.text for prompt in split("test")]
    prompts = [texts[i * max(1, len(texts) // batch) % len(texts)] for i in range(batch)]
    arms = {
        "ours": lambda: ours(model, prompts, settings, accept),
        "official": lambda: Official(model, prompts, settings).run(),
    }
    found = {}
    for name, turns in machine.take_turns(arms, repeats, str(model.device)).items():
        images, prefilled = turns.results[-1]
        found[name] = {
            "seconds": sorted(turns.seconds),
            "peak_bytes": max(turns.peaks),
            "images": images,
            "prefilled": prefilled,
            "chains_per_second": batch / statistics.median(turns.seconds),
        }
    return found


def bench(model: Janus, options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """A row more for every batch size, printed as it is known."""
    settings = Settings(
        rounds=options.rounds,
        guidance=options.guidance,
        history="last",
        text_temperature=1.0,
        max_reason_tokens=options.reason_tokens,
    )
    accept = tuple(float(share) for share in options.accept.split(","))
    print(f"{'batch':>5} {'arm':<9} {'seconds':>8} {'chains/s':>9} {'images':>7} {'prefilled':>10} {'peak GB':>8}")
    for batch in map(int, options.batch.split(",")):
        arms = measure(model, batch, settings, accept, options.repeats)
        for name, arm in arms.items():
            print(
                f"{batch:>5} {name:<9} {statistics.median(arm['seconds']):>8.2f} {arm['chains_per_second']:>9.3f} "
                f"{arm['images']:>7} {arm['prefilled']:>10} {arm['peak_bytes'] / 1e9:>8.2f}"
            )
        ratio = arms["ours"]["chains_per_second"] / arms["official"]["chains_per_second"]
        print(f"      ours is faster by {ratio:.2f}x", flush=True)
        rows.append({"batch": batch, "arms": arms})


# ------------------------------------------------------------------------------------------- repairs


def repair_forwards(model: Janus, prompts: int, settings: Settings, window: int | None) -> list[list[int]]:
    """Of chains of dense prompts, one at a time: the forwards of every draft, the first from its prompt.

    A chain ends where the truth finds nothing to mend; its instructions are the truth's, so that any editor can be
    measured, whatever it would have said itself.
    """
    decoder, found = Decoder(model), []
    for number, prompt in enumerate(split("dense")[:prompts]):
        counts: list[int] = []
        lead, guess = model.layout.opening(prompt.text), None
        for index in range(settings.rounds):
            stream = decoder.open([lead.drawing], [lead.unconditional] if settings.guidance > 1 else None)
            numbers = uniforms(settings.seed, [number], index, DRAW, model.image_tokens)
            before, heat = decoder.forwards, settings.repair_temperature if index else settings.temperature
            ids, _ = decoder.draw(stream, numbers, settings.guidance, heat, width=window, guess=guess)
            counts.append(decoder.forwards - before)
            (pixels,) = model.decode_image(ids)
            said = look_and_say(find_objects(pixels), prompt.description)
            if not said.repairs:
                break
            lead, guess = model.layout.opening(said.instruction, Source(tuple(ids[0].tolist()), pixels)), ids
        found.append(counts)
    return found


def own_chains(model: Janus, prompts: int, settings: Settings, window: int | None) -> dict[str, Any]:
    """Of chains that list and mend by themselves, one at a time: rounds, forwards, processor seconds."""
    decoders: list[Decoder] = []

    def noted(model: Janus) -> Decoder:
        decoders.append(Decoder(model))
        return decoders[-1]

    tasks = [Task(prompt.text) for prompt in split("dense")[:prompts]]
    algorithm.Decoder, began = noted, time.process_time()
    try:
        chains = algorithm.introspect(model, tasks, settings, max_batch=1, window=window)
    finally:
        algorithm.Decoder = Decoder
    return {
        "own_rounds": sum(len(chain.rounds) for chain in chains),
        "own_drawing": sum(decoder.forwards for decoder in decoders),
        "own_saying": sum(decoder.text_forwards for decoder in decoders),
        "own_cpu_s": time.process_time() - began,
    }


def bench_repairs(model: Janus, options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """One by one and in windows: forwards of first drafts and of repairs, and of chains that had all rounds."""
    settings = Settings(rounds=options.rounds, guidance=options.guidance)
    for window in (1, options.window):
        found = repair_forwards(model, options.repairs, settings, window)
        firsts, later = [counts[0] for counts in found], [n for counts in found for n in counts[1:]]
        whole = [sum(counts) / counts[0] for counts in found if len(counts) == settings.rounds]
        rows.append(
            {
                "window": window or "auto",
                "chains": len(found),
                "draft": statistics.mean(firsts),
                "repair": statistics.mean(later) if later else None,
                "chains_of_all_rounds": len(whole),
                "chain_to_draft": statistics.mean(whole) if whole else None,
            }
        )
        if model.format == "repair":
            rows[-1] |= own_chains(model, options.repairs, settings, window)
        print(rows[-1], flush=True)


def width(text: str) -> int | None:
    """``auto`` -> None, as many as pay."""
    return None if text == "auto" else int(text)


def options_from(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-sft", help="a model with trained weights")
    parser.add_argument("--preset", choices=("tiny", *PRESETS), help="random weights of this size instead")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=list(DTYPES))
    parser.add_argument("--batch", default="4,16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--accept", default="0.5,0.5", help="share of the rows still going that says Yes, by round")
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--reason-tokens", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--repairs", type=int, default=0, help="chains of mended drafts, in forwards, instead")
    parser.add_argument("--window", type=width, metavar="N", help="with --repairs: ids a forward, beside one by one")
    parser.add_argument("--no-save", action="store_true", help="do not append to the results")
    return parser.parse_args(argv)


def main() -> None:
    options = options_from()
    if options.preset:
        model = random_janus(options.preset, options.dtype, options.device)
    else:
        model = load(options.model, options.dtype, options.device)
    where = machine.name(options.device)
    print(f"{options.preset or options.model} {options.dtype}, accepted by round {options.accept}; {where}")
    kept = {key: value for key, value in vars(options).items() if key != "no_save"}
    record = {"date": str(date.today()), **kept, "machine": where, "environment": environment()}
    with machine.saving(RESULTS, record, save=not options.no_save) as rows:
        (bench_repairs if options.repairs else bench)(model, options, rows)


if __name__ == "__main__":
    main()
