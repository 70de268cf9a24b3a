"""Images a second of our decoder beside its two rivals, in one process, on the same weights.

    python benchmarks/decode.py --model tiny-sft --batch 1,4,16,64
    python benchmarks/decode.py --preset 7b --device cuda --dtype bfloat16 --batch 1,4,16,64,128
    python benchmarks/decode.py --preset 100m --batch 2 --tokens 32      # a 576-id image, cut short
    python benchmarks/decode.py --preset 1b --dtype int8 --batch 1,4 --tokens 8
    python benchmarks/decode.py --preset 7b --device cuda --dtype bfloat16 --kv fp8 --batch 64,128 --arms ours
    python benchmarks/decode.py --model tiny-sft --batch 1,4 --window 4,8,auto
    python benchmarks/decode.py --plot docs/decode.png

* ours          janus_r1.engine: preallocated cache, prompts prefilled once, fused projections; on a GPU
                one CUDA graph a token, of our own kernels in bfloat16
* transformers  JanusForConditionalGeneration.generate(generation_mode="image"), static cache
* official      a plain loop as the official code has it: a dynamic cache that grows every token

Every arm draws the same number of ids a row for the same prompts, with guidance, and takes turns with
the others, so that a busy moment of the machine does not favour one. Pixels are not decoded: the
VQ decoder is the same for all. A preset has random weights, which take as long as trained ones. With --dtype int8 or
--kv fp8 ours alone draws in 8 bits, and the others in bfloat16.

With --window ours also draws several ids a forward (janus_r1.engine.window): how many forwards an image takes, and how
many images and ids are those of one by one. Random weights are surprised by every id, so of a preset the time of a
forward by its width is the figure, and the forwards are those of a trained model.

The limit is memory: what every token must read (layers, image head, mean length of the cache) against
what a plain copy of a large tensor reads and writes a second on this machine, both measured here.
Results are appended to benchmarks/results/decode.jsonl.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import statistics
from collections.abc import Callable
from datetime import date
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # before torch: short waits, see docs/log.md

import torch
from transformers import AutoTokenizer
from transformers.cache_utils import DynamicCache

import machine
from janus_r1.engine.decoder import Decoder
from janus_r1.engine.memory import step_bytes
from janus_r1.engine.sampling import DRAW, uniforms
from janus_r1.environment import environment
from janus_r1.model.janus import Janus
from janus_r1.model.loading import DTYPES, EMBEDDED, INT8, KV, cache_dtype, load
from janus_r1.model.matrices import quantize
from janus_r1.model.presets import PRESETS, preset_config, random_model
from janus_r1.segments import Text
from janus_r1.worlds.shapes.prompts import split
from janus_r1.worlds.shapes.training.model import tiny_config

RESULTS = Path(__file__).parent / "results" / "decode.jsonl"


@lru_cache(1)
def decoder_of(model: Janus, int8: bool) -> Decoder:
    """One for all turns, as a service would have it: what it prepares once belongs to the warm-up."""
    if int8:
        model = copy.deepcopy(model)
        quantize(model.language)
    return Decoder(model)


def ours(model: Janus, prompts: list[Text], guidance: float, int8: bool = False, width: int | None = 1) -> torch.Tensor:
    decoder = decoder_of(model, int8)
    stream = decoder.open(prompts, [model.layout.unconditional(prompt) for prompt in prompts])
    uniform = uniforms(0, list(range(len(prompts))), 0, DRAW, model.image_tokens)
    return decoder.draw(stream, uniform, guidance, width=width)[0]


def forwards(model: Janus, prompts: list[Text], guidance: float, int8: bool, width: int | None) -> int:
    """That an image takes, first row to last."""
    decoder = decoder_of(model, int8)
    before = decoder.forwards
    ours(model, prompts, guidance, int8, width)
    return decoder.forwards - before


def transformers_generate(model: Janus, prompts: list[Text], guidance: float) -> torch.Tensor:
    ids, mask = left_padded(model, prompts)
    return model.core.generate(
        input_ids=ids, attention_mask=mask, generation_mode="image", do_sample=True, top_k=0, guidance_scale=guidance
    )


@torch.inference_mode()
def official(model: Janus, prompts: list[Text], guidance: float) -> torch.Tensor:
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
WINDOW = "window"  # arms of ours that draw several ids a forward: window 8, ...


def left_padded(model: Janus, prompts: list[Text]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(prompt) for prompt in prompts)
    pad = model.layout.special.pad
    ids = torch.tensor([[pad] * (longest - len(p)) + list(p.ids) for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    return ids, mask


def random_janus(preset: str, dtype: str, device: str) -> Janus:
    """Random weights; the embedded tokenizer spells the special tokens, whatever the vocabulary's size."""
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED / "tiny-base")
    config = tiny_config(len(tokenizer)) if preset == "tiny" else preset_config(preset, len(tokenizer))
    core = random_model(config, 0, DTYPES[dtype], device)
    janus = Janus(core, tokenizer).eval()
    special = janus.layout.special
    settings = core.generation_config  # what transformers' generate asks for
    settings.bos_token_id, settings.eos_token_id, settings.pad_token_id = special.bos, special.eos, special.pad
    settings.generation_kwargs = {"boi_token_id": special.begin_of_image}
    return janus


def shorten(model: Janus, tokens: int) -> None:
    """Let every arm draw the first ``tokens`` ids of an image only."""
    model.image_tokens = model.core.model.vision_model.config.num_image_tokens = tokens


def prompts_for(model: Janus, batch: int) -> list[Text]:
    """``batch`` prompts of the test split, spread over its families and repeated where it ends."""
    texts = [prompt.text for prompt in split("test")]
    return [model.layout.prompt(texts[i * max(1, len(texts) // batch) % len(texts)]) for i in range(batch)]


def measure(model: Janus, batch: int, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Seconds a batch (sorted) and peak bytes for every arm."""
    prompts = prompts_for(model, batch)
    named = [name for name in ARMS if name in options.arms.split(",")]
    arms = {name: partial(ARMS[name], model, prompts, options.guidance) for name in named}
    int8, counts = options.dtype == INT8, {}
    if "ours" in arms:
        arms["ours"] = partial(arms["ours"], int8=int8)
        counts["ours"] = forwards(model, prompts, options.guidance, int8, 1)
    for width in options.window:
        name = f"{WINDOW} {width or 'auto'}"
        arms[name] = partial(ours, model, prompts, options.guidance, int8, width)
        counts[name] = forwards(model, prompts, options.guidance, int8, width)
    turns = machine.take_turns(arms, options.repeats, str(model.device))
    assert all(ids.shape == (batch, model.image_tokens) for arm in turns.values() for ids in arm.results)
    found = {name: {"seconds": sorted(arm.seconds), "peak_bytes": max(arm.peaks)} for name, arm in turns.items()}
    for name, count in counts.items():
        found[name] |= {"forwards": count, "seconds_per_forward": statistics.median(turns[name].seconds) / count}
        if "ours" in turns:
            same = turns[name].results[0] == turns["ours"].results[0]
            found[name] |= {"equal_ids": float(same.float().mean()), "equal_images": float(same.all(1).float().mean())}
    return found


def rates(
    model: Janus, batch: int, arm: dict[str, Any], bandwidth: float, int8: bool = False, kv: torch.dtype | None = None
) -> dict[str, float]:
    """What follows from the median: images, tokens and bytes a second, and the share of the copy bandwidth."""
    took = statistics.median(arm["seconds"])
    prompts = prompts_for(model, batch)
    context = sum(len(prompt) for prompt in prompts) // batch + model.image_tokens // 2
    read = step_bytes(model.core.config, model.dtype, 2 * batch, context, int8, kv) * model.image_tokens
    return {
        "images_per_second": batch / took,
        "tokens_per_second": batch * model.image_tokens / took,
        "bytes_per_second": read / took,
        "share_of_bandwidth": read / took / bandwidth,
    }


def profile(model: Janus, batch: int, options: argparse.Namespace) -> str:
    """Where the time of our arm goes."""
    prompts = prompts_for(model, batch)
    with torch.profiler.profile() as record:
        ours(model, prompts, options.guidance, options.dtype == INT8)
    return record.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=40)


def bench(model: Janus, options: argparse.Namespace, bandwidth: float, rows: list[dict[str, Any]]) -> None:
    """A row more for every batch size, printed as it is known."""
    print(f"{'batch':>5} {'arm':<12} {'images/s':>9} {'tokens/s':>9} {'GB/s':>8} {'of copy':>7} {'peak GB':>8}")
    for batch in map(int, options.batch.split(",")):
        arms = measure(model, batch, options)
        for name, arm in arms.items():
            own = {"int8": options.dtype == INT8, "kv": model.cache_dtype} if "forwards" in arm else {}
            arm |= rates(model, batch, arm, bandwidth, **own)
            print(
                f"{batch:>5} {name:<12} {arm['images_per_second']:>9.3f} {arm['tokens_per_second']:>9.1f} "
                f"{arm['bytes_per_second'] / 1e9:>8.2f} {arm['share_of_bandwidth']:>7.1%} "
                f"{arm['peak_bytes'] / 1e9:>8.2f}" + _windows(arm)
            )
        speed = {name: arm["images_per_second"] for name, arm in arms.items() if not name.startswith(WINDOW)}
        fastest = speed.pop("ours", None)
        if fastest and speed:
            ratios = [f"{fastest / rival:.2f}x than {name}" for name, rival in speed.items()]
            print("      ours is faster by " + ", ".join(ratios), flush=True)
        rows.append({"batch": batch, "arms": arms})


def _windows(arm: dict[str, Any]) -> str:
    """What an arm of ours says of its forwards."""
    if "forwards" not in arm:
        return ""
    equal = f", {arm['equal_images']:.0%} of images equal" if "equal_images" in arm else ""
    return f"  {arm['forwards']} forwards of {arm['seconds_per_forward'] * 1e3:.2f} ms{equal}"


def widths(text: str) -> list[int | None]:
    """``1,8,auto`` -> [1, 8, None]."""
    return [None if part == "auto" else int(part) for part in text.split(",") if part]


def plot(records: list[dict[str, Any]], path: Path) -> None:
    """Images a second over the batch size, a panel for every model and machine; the latest record of each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    latest = {
        (r.get("preset") or r["model"], r["machine"], r["dtype"]): r
        for r in records
        if "machine" in r and r.get("kv", "auto") == "auto" and len(r["rows"][0]["arms"]) > 1
    }
    columns = min(2, len(latest))
    lines = math.ceil(len(latest) / columns)
    figure, axes = pyplot.subplots(lines, columns, figsize=(5 * columns, 3.6 * lines), squeeze=False)
    for axis in axes.flat[len(latest) :]:
        axis.remove()
    for axis, ((name, where, dtype), record) in zip(axes.flat, latest.items(), strict=False):
        for arm in (arm for arm in record["rows"][0]["arms"] if arm in ARMS):
            points = [(row["batch"], row["arms"][arm]["images_per_second"]) for row in record["rows"]]
            axis.plot(*zip(*points, strict=True), marker="o", label=arm, color=f"C{list(ARMS).index(arm)}")
        short = f", first {record['tokens']} ids" if record.get("tokens") else ""
        axis.set(title=f"{name}, {dtype}{short}\n{where}", xlabel="images in a batch", ylabel="images a second")
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks([row["batch"] for row in record["rows"]])
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
        axis.tick_params(which="both", labelsize=8)
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=80)


def options_from(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-sft", help="a model with trained weights")
    parser.add_argument("--preset", choices=("tiny", *PRESETS), help="random weights of this size instead")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", default="1,4,16,64")
    parser.add_argument("--tokens", type=int, default=0, help="ids an image, to try a large model in short")
    parser.add_argument("--dtype", default="float32", choices=[*DTYPES, INT8])
    parser.add_argument("--kv", default="auto", choices=list(KV), help="fp8: our cached keys and values in 8 bits")
    parser.add_argument("--arms", default=",".join(ARMS), help="some of them only")
    parser.add_argument("--window", type=widths, default=[], metavar="N,N", help="ours, so many ids a forward, too")
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--profile", action="store_true", help="also print where our time goes at the largest batch")
    parser.add_argument("--no-save", action="store_true", help="do not append to the results")
    parser.add_argument("--plot", metavar="PNG", type=Path, help="draw the saved results; measure nothing")
    return parser.parse_args(argv)


def main() -> None:
    options = options_from()
    if options.plot:
        plot([json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()], options.plot)
        return
    if options.threads:
        torch.set_num_threads(options.threads)
    dtype = "bfloat16" if options.dtype == INT8 else options.dtype
    if options.preset:
        model = random_janus(options.preset, dtype, options.device)
    else:
        model = load(options.model, dtype, options.device)
    model.cache_dtype = cache_dtype(options.kv)
    if options.tokens:
        shorten(model, options.tokens)
    bandwidth, where = machine.copy_bandwidth(options.device), machine.name(options.device)
    print(f"{options.preset or options.model} {options.dtype}, {model.image_tokens} ids, guidance {options.guidance}")
    print(f"{where}, {torch.get_num_threads()} used, copies {bandwidth / 1e9:.1f} GB/s")
    kept = {key: value for key, value in vars(options).items() if key not in ("plot", "no_save")}
    record = {"date": str(date.today()), **kept, "machine": where, "copy_bytes_per_second": bandwidth}
    with machine.saving(RESULTS, record | {"environment": environment()}, save=not options.no_save) as rows:
        bench(model, options, bandwidth, rows)
        if options.profile:
            print(profile(model, rows[-1]["batch"], options))


if __name__ == "__main__":
    main()
