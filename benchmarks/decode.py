"""Images a second of our decoder beside its two rivals, in one process, on the same weights.

    python benchmarks/decode.py --model tiny-sft --batch 1,4,16,64

* ours          janus_r1.engine: preallocated cache, prompts prefilled once, fused projections
* transformers  JanusForConditionalGeneration.generate(generation_mode="image"), static cache
* official      a plain loop as the official code has it: a dynamic cache that grows every token

Every arm draws the same number of ids a row for the same prompts, with guidance, and takes turns with
the others, so that a busy moment of the machine does not favour one. Pixels are not decoded: the
VQ decoder is the same for all. Results are appended to benchmarks/results/decode.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # before torch: short waits, see docs/log.md

import torch
from transformers.cache_utils import DynamicCache

from janus_r1.engine.decoder import Decoder
from janus_r1.engine.sampling import DRAW, uniforms
from janus_r1.model.janus import Janus
from janus_r1.model.loading import load
from janus_r1.train.loop import environment
from janus_r1.world.prompts import split

RESULTS = Path(__file__).parent / "results" / "decode.jsonl"


def ours(model: Janus, prompts: list, guidance: float) -> torch.Tensor:
    decoder = Decoder(model)
    stream = decoder.open(prompts, [model.layout.unconditional(prompt) for prompt in prompts])
    uniform = uniforms(0, list(range(len(prompts))), 0, DRAW, model.image_tokens)
    return decoder.draw(stream, uniform, guidance)[0]


def transformers_generate(model: Janus, prompts: list, guidance: float) -> torch.Tensor:
    ids, mask = left_padded(model, prompts)
    return model.core.generate(
        input_ids=ids, attention_mask=mask, generation_mode="image", do_sample=True, top_k=0, guidance_scale=guidance
    )


@torch.inference_mode()
def official(model: Janus, prompts: list, guidance: float) -> torch.Tensor:
    """Interleaved conditional and unconditional rows; cache and mask grow by concatenation."""
    ids, mask = left_padded(model, prompts)
    rows = ids.repeat_interleave(2, dim=0)
    special = model.layout.special
    keep = (rows == special.bos) | (rows == special.begin_of_image)
    rows[1::2] = torch.where(keep[1::2], rows[1::2], torch.full_like(rows[1::2], special.pad))
    mask, embeddings = mask.repeat_interleave(2, dim=0), model.embed_text(rows)
    cache, drawn = DynamicCache(), []
    for _ in range(model.image_tokens):
        outputs = model.core.model.language_model(
            inputs_embeds=embeddings, attention_mask=mask, past_key_values=cache, use_cache=True
        )
        logits = model.image_logits(outputs.last_hidden_state[:, -1])
        conditional, unconditional = logits[0::2], logits[1::2]
        probs = (unconditional + guidance * (conditional - unconditional)).softmax(-1)
        chosen = torch.multinomial(probs, 1)
        drawn.append(chosen)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        embeddings = model.embed_drawn(chosen.repeat_interleave(2, dim=0))
    return torch.cat(drawn, dim=1)


ARMS: dict[str, Callable] = {"ours": ours, "transformers": transformers_generate, "official": official}


def left_padded(model: Janus, prompts: list) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(prompt) for prompt in prompts)
    pad = model.layout.special.pad
    ids = torch.tensor([[pad] * (longest - len(p)) + list(p.ids) for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    return ids, mask


def measure(model: Janus, batch: int, guidance: float, repeats: int) -> dict[str, dict[str, float]]:
    """Median, least and most seconds a batch for every arm; the arms take turns."""
    prompts = [model.layout.prompt(prompt.text) for prompt in split("test")[:: 553 // batch][:batch]]
    seconds: dict[str, list[float]] = {name: [] for name in ARMS}
    for turn in range(repeats + 1):
        for name, arm in ARMS.items():
            began = time.perf_counter()
            ids = arm(model, prompts, guidance)
            took = time.perf_counter() - began
            assert ids.shape == (batch, model.image_tokens)
            if turn:  # the first turn warms up
                seconds[name].append(took)
    return {
        name: {"images_per_second": batch / statistics.median(s), "seconds": sorted(s)} for name, s in seconds.items()
    }


def profile(model: Janus, batch: int, guidance: float) -> str:
    """Where the time of our arm goes."""
    prompts = [model.layout.prompt(prompt.text) for prompt in split("test")[:batch]]
    with torch.profiler.profile() as record:
        ours(model, prompts, guidance)
    return record.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-sft")
    parser.add_argument("--batch", default="1,4,16,64")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--profile", action="store_true", help="also print where our time goes at the largest batch")
    parser.add_argument("--no-save", action="store_true", help="do not append to the results")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    model = load(options.model, options.dtype)
    batches = [int(b) for b in options.batch.split(",")]
    print(f"{options.model} {options.dtype}, {torch.get_num_threads()} threads, guidance {options.guidance}")
    print(f"{'batch':>6} {'ours':>14} {'transformers':>14} {'official':>14}   images/s; ours is faster by")
    rows = []
    for batch in batches:
        arms = measure(model, batch, options.guidance, options.repeats)
        rate = {name: arm["images_per_second"] for name, arm in arms.items()}
        factors = ", ".join(f"{rate['ours'] / rate[name]:.1f}x {name}" for name in ("transformers", "official"))
        print(f"{batch:>6} " + " ".join(f"{rate[name]:>14.2f}" for name in ARMS) + f"   {factors}", flush=True)
        rows.append({"batch": batch, "arms": arms})
    if options.profile:
        print(profile(model, batches[-1], options.guidance))
    if not options.no_save:
        RESULTS.parent.mkdir(exist_ok=True)
        record = {"date": str(date.today()), **vars(options), "environment": environment(), "rows": rows}
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
