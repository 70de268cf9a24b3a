"""A step of reinforcement learning in the structure of the official code, over our own modules: the rival of rl_step.

Three stages, each prefilled from nothing (draw; judge; redraw of every row, accepted or not), a cache that grows by
concatenation, heads over all positions of policy and reference, three losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from transformers.cache_utils import DynamicCache

from janus_r1.chain import Task
from janus_r1.model.janus import Janus, from_uint8
from janus_r1.segments import Drawn, Row, Seen, Text, row_length
from janus_r1.train.credit import normalised
from janus_r1.train.policy import k3
from janus_r1.train.rl import Parts


@dataclass
class Chains:
    """Of B rows: prompts, both drafts' ids [B, S] and pixels, and verdicts' ids."""

    prompts: list[Text]
    first: torch.Tensor
    second: torch.Tensor
    pixels: list
    verdicts: list[tuple[int, ...]]


def three_stages(stage: Parts, texts: Sequence[str]) -> Chains:
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


def draw(stage: Parts, rows: list[Row], unconditional: list[Row]) -> torch.Tensor:
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


def say(stage: Parts, rows: list[Row]) -> list[tuple[int, ...]]:
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


def scored(stage: Parts, texts: Sequence[str], chains: Chains) -> list[torch.Tensor]:
    """Advantages [B] of draft 1, of the verdict, and of the last draft, each normalised in its group."""
    layout, group = stage.janus.layout, stage.recipe.group
    first, second = (
        [float(s) for s in stage.rewards.score([(Task(t), i) for t, i in zip(texts, pixels, strict=True)])]
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


def three_losses(stage: Parts, chains: Chains, advantages: list[torch.Tensor]) -> torch.Tensor:
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


def loss_of(stage: Parts, function, rows: list[Row], advantages: torch.Tensor) -> torch.Tensor:
    """Mean over rows of the mean over tokens of -(ratio A) + kl k3."""
    now, counts = function(stage.janus, rows, stage.recipe.guidance)
    base = stage.adapters.off() if stage.adapters else nullcontext()
    with torch.no_grad(), base:
        fixed, _ = function(stage.janus if stage.adapters else stage.reference.janus, rows, stage.recipe.guidance)
    wanted = advantages.to(now).repeat_interleave(counts)
    tokens = -(now - now.detach()).exp() * wanted + stage.recipe.kl * k3(now, fixed)
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
