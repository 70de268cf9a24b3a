"""Seconds a step of reinforcement learning beside the official code's structure, in one process, on the same work.

    python benchmarks/rl_step.py --model tiny-sft --prompts 8 --group 8

* ours      train.rl: streams that only grow, accepted rows leave, sampled positions alone reach a head
* official  three stages, each prefilled from nothing: draw; judge; redraw of every row, accepted or not; a cache
            that grows by concatenation; heads over all positions of policy and reference; three losses whose
            graphs live until one backward pass

Both draw the same prompts with the same group, model, guidance and longest reason, two drafts a chain at
most, score them with the world's verifier, and make one AdamW step (of rate 0, so that every turn does the
same). They take turns. Peak memory is the process's on a CPU, in the first turn: later it holds what the other
arm has left behind; on a GPU it is what torch allocated.
Results are appended to benchmarks/results/rl_step.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # before torch: short waits, see docs/log.md

import torch
from transformers.cache_utils import DynamicCache

from janus_r1.environment import environment
from janus_r1.layout import Drawn, Row, Seen, Text, row_length
from janus_r1.model.janus import Janus, from_uint8
from janus_r1.reward.score import Scorable
from janus_r1.train.loop import RunOptions
from janus_r1.train.lora import LoraRecipe
from janus_r1.train.rl.credit import normalised
from janus_r1.train.rl.grpo import k3
from janus_r1.train.rl.recipe import RlRecipe
from janus_r1.train.rl.stage import RlStage

RESULTS = Path(__file__).parent / "results" / "rl_step.jsonl"
KL = 0.05
PARTS = ("drawing", "reward", "learning")


@dataclass
class Step:
    """Seconds of the parts of a step, its drafts, and its peak memory in bytes."""

    seconds: dict[str, float] = field(default_factory=dict)
    images: int = 0
    peak: int = 0

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        began = _now()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + _now() - began


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


# ---------------------------------------------------------------------------------------- our structure


def ours(stage: RlStage) -> Step:
    step = Step()
    with step.timed("drawing"):
        batches = stage.batches(0)
    step.images = sum(len(t.chain.rounds) for part in stage.parts for t in part)
    step.seconds["reward"] = stage.figures["seconds_waiting"]  # beyond what ran beside the drawing
    step.seconds["drawing"] -= step.seconds["reward"]
    with step.timed("learning"):
        for batch in batches:
            with precision(stage):
                loss, _ = stage.loss(stage.module, batch, 0)
            loss.backward()
        update(stage)
    return step


def precision(stage: RlStage):
    half = stage.recipe.run.precision == "bf16"
    return torch.autocast(stage.janus.device.type, torch.bfloat16, enabled=half)


def update(stage: RlStage) -> None:
    for optimizer in stage.optimizers:
        optimizer.step()
        optimizer.zero_grad()


# ------------------------------------------------------------------------------- the official structure


def official(stage: RlStage) -> Step:
    """Rows at once: as many as ours learns from at once."""
    step, recipe = Step(), stage.recipe
    texts = [text for text in stage.prompts.step(recipe.prompts_per_step, 0, 0) for _ in range(recipe.group)]
    rows = max(recipe.group, recipe.micro_batch // recipe.group * recipe.group)
    for start in range(0, len(texts), rows):
        part = texts[start : start + rows]
        with torch.no_grad(), step.timed("drawing"), precision(stage):
            chains = three_stages(stage, part)
        with step.timed("reward"):
            advantages = scored(stage, part, chains)
        with step.timed("learning"), precision(stage):
            (three_losses(stage, chains, advantages) * len(part) / len(texts)).backward()
        step.images += 2 * len(part)
    with step.timed("learning"):
        update(stage)
    return step


@dataclass
class Chains:
    """Of B rows: prompts, both drafts' ids [B, S] and pixels, and verdicts' ids."""

    prompts: list[Text]
    first: torch.Tensor
    second: torch.Tensor
    pixels: list
    verdicts: list[tuple[int, ...]]


def three_stages(stage: RlStage, texts: Sequence[str]) -> Chains:
    model, layout = stage.janus, stage.janus.layout
    prompts = [layout.prompt(text) for text in texts]
    first = draw(stage, [(p,) for p in prompts], [(layout.unconditional(p),) for p in prompts])
    pixels = model.decode_image(first)
    looked_at = zip(prompts, pixels, strict=True)
    verdicts = say(stage, [(p, Seen(i, model.image_tokens), layout.self_check) for p, i in looked_at])
    again = model.encode_image(from_uint8(pixels).to(model.device)).tolist()  # as the official code does
    contexts = [context(model, ids, verdict) for ids, verdict in zip(again, verdicts, strict=True)]
    guided = [(p, *c) for p, c in zip(prompts, contexts, strict=True)]
    unguided = [(layout.unconditional(p), *c) for p, c in zip(prompts, contexts, strict=True)]
    second = draw(stage, guided, unguided)
    return Chains(prompts, first, second, [pixels, model.decode_image(second)], verdicts)


def context(model: Janus, ids: Sequence[int], verdict: tuple[int, ...]) -> Row:
    layout = model.layout
    return Drawn(tuple(ids)), layout.self_check, Text(layout.closed(verdict)), layout.regenerate


def draw(stage: RlStage, rows: list[Row], unconditional: list[Row]) -> torch.Tensor:
    """Image ids [B, S]; cache and mask grow by a token at a time."""
    model, guidance = stage.janus, stage.recipe.guidance
    embeddings, mask = left_padded(model, [*rows, *unconditional])
    cache, drawn = DynamicCache(), []
    for _ in range(model.image_tokens):
        logits = model.image_logits(forward(model, embeddings, mask, cache)).float()
        conditional, plain = logits.chunk(2)
        drawn.append(torch.multinomial((plain + guidance * (conditional - plain)).softmax(-1), 1))
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        embeddings = model.embed_drawn(drawn[-1]).repeat(2, 1, 1)
    return torch.cat(drawn, dim=1)


def say(stage: RlStage, rows: list[Row]) -> list[tuple[int, ...]]:
    """Verdicts, the first token being Yes or No; goes on until every row has ended."""
    model, special = stage.janus, stage.janus.layout.special
    allowed = torch.tensor([special.yes, special.no], device=model.device)
    embeddings, mask = left_padded(model, rows)
    cache, said = DynamicCache(), []
    for index in range(stage.recipe.max_reason_tokens):
        logits = model.text_logits(forward(model, embeddings, mask, cache)).float()
        options = logits[:, allowed] if index == 0 else logits
        chosen = torch.multinomial(options.softmax(-1), 1)
        said.append(allowed[chosen] if index == 0 else chosen)
        if (torch.cat(said, dim=1) == special.eos).any(1).all():
            break
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        embeddings = model.embed_text(said[-1])
    ended = [ids.index(special.eos) + 1 if special.eos in ids else len(ids) for ids in torch.cat(said, 1).tolist()]
    return [tuple(ids[:end]) for ids, end in zip(torch.cat(said, 1).tolist(), ended, strict=True)]


def forward(model: Janus, embeddings: torch.Tensor, mask: torch.Tensor, cache: DynamicCache) -> torch.Tensor:
    """Hidden state [R, D] of the last position."""
    places = (mask.cumsum(1) - 1).clamp(min=0)[:, -embeddings.shape[1] :]
    language = model.core.model.language_model
    outputs = language(
        inputs_embeds=embeddings, attention_mask=mask, position_ids=places, past_key_values=cache, use_cache=True
    )
    return outputs.last_hidden_state[:, -1]


def left_padded(model: Janus, rows: list[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings [R, L, D] and the mask [R, L] of what is no padding."""
    lengths = torch.tensor([row_length(row) for row in rows], device=model.device)
    embeddings = model.embed_rows(rows)
    place = torch.arange(embeddings.shape[1], device=model.device) - (embeddings.shape[1] - lengths).unsqueeze(1)
    turned = embeddings.gather(1, place.clamp(min=0).unsqueeze(-1).expand_as(embeddings))
    return turned, (place >= 0).long()


# ------------------------------------------------------------------------------------- three losses


def scored(stage: RlStage, texts: Sequence[str], chains: Chains) -> list[torch.Tensor]:
    """Advantages [B] of draft 1, of the verdict, and of the last draft, each normalised in its group."""
    layout, group = stage.janus.layout, stage.recipe.group
    first, second = (
        [float(s) for s in stage.rewards.score([Scorable(t, i) for t, i in zip(texts, pixels, strict=True)])]
        for pixels in chains.pixels
    )
    yes = [verdict[0] == layout.special.yes for verdict in chains.verdicts]
    agreed = [1 - abs(r - v) for r, v in zip(first, yes, strict=True)]
    final = [a if v else b for a, b, v in zip(first, second, yes, strict=True)]
    groups = range(0, len(texts), group)
    return [
        torch.tensor([x for start in groups for x in normalised(values[start : start + group])])
        for values in (first, agreed, final)
    ]


def three_losses(stage: RlStage, chains: Chains, advantages: list[torch.Tensor]) -> torch.Tensor:
    """Their mean; the third scores draft 1 after the prompt where it was accepted, else draft 2 in its context."""
    layout, model = stage.janus.layout, stage.janus
    first, second = chains.first.tolist(), chains.second.tolist()
    draws, judges, lasts = [], [], []
    parts = zip(chains.prompts, first, second, chains.pixels[0], chains.verdicts, strict=True)
    for prompt, one, two, pixels, verdict in parts:
        draws.append((prompt, Drawn(tuple(one), learn=True)))
        judges.append((prompt, Seen(pixels, model.image_tokens), layout.self_check, Text(verdict, learn=True)))
        redrawn = (prompt, *context(model, one, verdict), Drawn(tuple(two), learn=True))
        lasts.append(draws[-1] if verdict[0] == layout.special.yes else redrawn)
    rows = zip((draws, judges, lasts), (image_logprobs, text_logprobs, image_logprobs), advantages, strict=True)
    return torch.stack([loss_of(stage, function, part, a) for part, function, a in rows]).mean()


def loss_of(stage: RlStage, function, rows: list[Row], advantages: torch.Tensor) -> torch.Tensor:
    """Mean over rows of the mean over tokens of -(ratio A) + KL."""
    now, counts = function(stage.janus, rows, stage.recipe.guidance)
    base = stage.adapters.off() if stage.adapters else nullcontext()
    with torch.no_grad(), base:
        fixed, _ = function(stage.janus if stage.adapters else stage.reference.janus, rows, stage.recipe.guidance)
    wanted = advantages.to(now).repeat_interleave(counts)
    tokens = -(now - now.detach()).exp() * wanted + KL * k3(now, fixed)
    return torch.stack([part.mean() for part in tokens.split(counts.tolist())]).mean()


def image_logprobs(model: Janus, rows: list[Row], guidance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs of the last image of every row, from logits of all positions at both guidances."""
    plain = [(model.layout.unconditional(row[0]), *row[1:]) for row in rows]
    logits = model.image_logits(model.hidden(model.embed_rows([*rows, *plain]))).float()
    conditional, unconditional = logits.chunk(2)
    every = (conditional - (guidance - 1) / guidance * unconditional).log_softmax(-1)
    return last_segment(every, rows)


def text_logprobs(model: Janus, rows: list[Row], guidance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs of the verdict of every row, from logits of all positions."""
    return last_segment(model.text_logits(model.hidden(model.embed_rows(rows))).float().log_softmax(-1), rows)


def last_segment(logprobs_BLV: torch.Tensor, rows: list[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs of the ids of every row's last segment, one after another, and how many each has."""
    chosen = []
    for row, of_row in zip(rows, logprobs_BLV, strict=True):
        end = row_length(row) - 1
        ids = torch.tensor(row[-1].ids, device=of_row.device)
        chosen.append(of_row[end - len(ids) : end].gather(1, ids.unsqueeze(1)).squeeze(1))
    counts = torch.tensor([len(part) for part in chosen], device=logprobs_BLV.device)
    return torch.cat(chosen), counts


# ------------------------------------------------------------------------------------------ measuring


@contextmanager
def peak_memory(step_of: list[Step], device: torch.device) -> Iterator[None]:
    """Sets ``peak`` of the step that the block appends."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        yield
        step_of[-1].peak = torch.cuda.max_memory_allocated()
        return
    seen, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            seen.append(resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield
    done.set()
    watcher.join()
    step_of[-1].peak = max(seen)


def resident() -> int:
    """Bytes of memory this process has; 0 where nothing tells."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if path.exists() else 0


ARMS = {"ours": ours, "official": official}


def measure(stage: RlStage, arms: Sequence[str], repeats: int) -> dict[str, dict]:
    """Medians of every arm; they take turns, and the first turn warms up."""
    steps: dict[str, list[Step]] = {name: [] for name in arms}
    for _ in range(repeats + 1):
        for name in arms:
            with peak_memory(steps[name], stage.janus.device):
                steps[name].append(ARMS[name](stage))
    return {name: summary(made[1:]) | {"peak_bytes": made[0].peak} for name, made in steps.items()}


def summary(steps: Sequence[Step]) -> dict:
    middle = statistics.median(step.total for step in steps)
    parts = {part: statistics.median(step.seconds[part] for step in steps) for part in PARTS}
    images = statistics.median(step.images for step in steps)
    return {
        "seconds": middle,
        "all_seconds": sorted(step.total for step in steps),
        "split": parts,
        "images": images,
        "images_per_second": images / middle,
    }


def stage_of(options: argparse.Namespace) -> RlStage:
    run = RunOptions(out=options.out, precision=options.precision, threads=options.threads)
    return RlStage(
        RlRecipe(
            run=run,
            model=options.model,
            prompts_per_step=options.prompts,
            group=options.group,
            rounds=2,
            guidance=options.guidance,
            max_reason_tokens=options.max_reason_tokens,
            micro_batch=options.rows,
            max_batch=options.rows,
            credit="segment",
            policy="guided",
            kl=KL,
            lr=0.0,
            rollout_dtype="bfloat16" if options.precision == "bf16" else "float32",
            lora=LoraRecipe(rank=options.lora_rank, base_dtype=options.base_dtype),
            recompute=options.recompute,
            eval_every=0,
        )
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-sft")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--rows", type=int, default=32, help="chains at once, in drawing and in learning")
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--max-reason-tokens", type=int, default=40)
    parser.add_argument("--precision", default="no", choices=["no", "bf16"])
    parser.add_argument("--lora-rank", type=int, default=0)
    parser.add_argument("--base-dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--recompute", action="store_true", help="activations, in both arms")
    parser.add_argument("--arms", default="ours,official")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--no-save", action="store_true", help="do not append to the results")
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as options.out:
        arms = measure(stage_of(options), options.arms.split(","), options.repeats)
    del options.out
    for name, arm in arms.items():
        split = ", ".join(f"{part} {arm['split'][part]:.2f}" for part in PARTS)
        rate = f"{arm['images']:.0f} images, {arm['images_per_second']:.2f} a second"
        print(f"{name:>9}  {arm['seconds']:7.2f} s a step ({split}); {rate}; peak {arm['peak_bytes'] / 1e9:.2f} GB")
    if len(arms) == 2:
        print(f"ours is faster by {arms['official']['seconds'] / arms['ours']['seconds']:.1f}x a step")
    if not options.no_save:
        RESULTS.parent.mkdir(exist_ok=True)
        record = {"date": str(date.today()), **vars(options), "environment": environment(), "arms": arms}
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
