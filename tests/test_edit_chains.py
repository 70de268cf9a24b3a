"""Chains that edit an image: the template, log-probs against a forward without a cache, gradients, the record."""

from __future__ import annotations

import json
import random
from itertools import islice

import numpy as np
import pytest
import torch

from janus_r1.api import JanusR1
from janus_r1.chain import Settings, Task, load_chain
from janus_r1.engine.sampling import guided, restrict
from janus_r1.errors import UserError
from janus_r1.introspect import introspect, judge
from janus_r1.layout import MAX_INSTRUCTION_TOKENS
from janus_r1.segments import Drawn, Seen, Text, row_length
from janus_r1.train.objective import NextToken, targets
from janus_r1.train.policy import Policy, rows_of
from janus_r1.worlds.shapes.edit_cases import train_edits
from janus_r1.worlds.shapes.scene import render

CASES = list(islice(train_edits(random.Random(3)), 3))
SAMPLED = {"rounds": 3, "early_stop": False, "text_temperature": 1.0, "text_top_k": 0, "max_reason_tokens": 7}


def edits(tiny, **changes):
    """Three edits and, in the same batch, a prompt to draw."""
    tasks = [*(Task(case.instruction.text, render(case.source)) for case in CASES), Task("a red circle")]
    return introspect(tiny, tasks, Settings(**(SAMPLED | {"guidance": 2.5, "seed": 6} | changes)))


# ---------------------------------------------------------------------------------------- template


def test_the_source_stands_behind_the_instruction(tiny):
    ids = tuple(range(tiny.image_tokens))
    head, image, tail = tiny.layout.edit_prompt(ids, "  remove the ring ")
    spell = tiny.tokenizer.decode
    assert spell(head.ids) == "<｜begin▁of▁sentence｜><|User|>: remove the ring\n<begin_of_image>"
    assert image == Drawn(ids)
    assert spell(tail.ids) == "<end_of_image> Please generate an image.\n\n<|Assistant|>:<begin_of_image>"
    assert tail == tiny.layout.edit_prompt(ids, "make the small blue square red")[2]


def test_guidance_drops_the_instruction_and_nothing_else(tiny):
    ids = (5,) * tiny.image_tokens
    kept, dropped = (tiny.layout.edit_prompt(ids, "remove the ring", drop) for drop in (False, True))
    assert kept[1:] == dropped[1:] and len(kept[0]) == len(dropped[0])
    changed = [i for i, pair in enumerate(zip(kept[0].ids, dropped[0].ids, strict=True)) if pair[0] != pair[1]]
    words = tiny.tokenizer.encode(" remove the ring", add_special_tokens=False)
    assert [kept[0].ids[i] for i in changed] == words
    assert {dropped[0].ids[i] for i in changed} == {tiny.layout.special.pad}


def test_long_instructions_are_cut_but_not_the_structure(tiny):
    short, long = (tiny.layout.edit_prompt((0,), "remove the ring " * n)[0] for n in (1, 200))
    suffix = tiny.tokenizer.encode("\n<begin_of_image>", add_special_tokens=False)
    assert long.ids[-len(suffix) :] == short.ids[-len(suffix) :] == tuple(suffix)
    words = len(tiny.tokenizer.encode(" remove the ring", add_special_tokens=False))
    assert len(long) - len(short) == MAX_INSTRUCTION_TOKENS - words


@pytest.mark.parametrize("text", ["", " \n", "remove the <end_of_image>"])
def test_instructions_that_cannot_be_meant_are_refused(tiny, text):
    with pytest.raises(UserError, match="the instruction"):
        tiny.layout.edit_prompt((0,), text)


def test_an_edit_is_asked_for_again_before_every_later_draft(tiny):
    """In all streams as at first, but for the sequence's first token; prompts are followed by the released string."""
    (source,) = tiny.sources([render(CASES[0].source)])
    first, later = (ask("remove the ring", source) for ask in (tiny.layout.opening, tiny.layout.again))
    for row, again in zip(vars(first).values(), vars(later).values(), strict=True):
        assert Text(row[0].ids[1:]) == again[0] and row[2] == again[2]
        assert row[1] is again[1] or row[1] == again[1]
    assert row_length(later.unconditional) == row_length(later.drawing) != row_length(first.drawing)
    assert vars(tiny.layout.again("a ring")) == dict.fromkeys(vars(later), (tiny.layout.regenerate,))


# ---------------------------------------------------------------------------------------- log-probs


def hidden(model, row) -> torch.Tensor:
    """[L, D] by transformers' own LlamaModel, without a cache."""
    with torch.no_grad():
        return model.hidden(model.embed_rows([tuple(row)]))[0]


def logits_at_the_end(model, row, count: int, head) -> torch.Tensor:
    """Of the last ``count`` tokens of ``row``."""
    length = row_length(row)
    return head(hidden(model, row)[length - count - 1 : length - 1]).detach()


@pytest.mark.parametrize("history", ["full", "last"])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_edit_logprobs_equal_uncached_forward(tiny, guidance, history):
    """Every log-prob that the engine reported, recomputed from rows put together by hand."""
    layout, settings = tiny.layout, Settings(**SAMPLED)
    for chain in edits(tiny, guidance=guidance, history=history)[:3]:
        conditional, unconditional = (
            layout.edit_prompt(chain.source.ids, chain.prompt, drop) for drop in (False, True)
        )
        head, _, tail = conditional
        seen = [head, Seen(chain.source.pixels, tiny.image_tokens), tail]
        asked_again = [[Text(row[0].ids[1:]), *row[1:]] for row in (conditional, unconditional, seen)]
        drawn, looked = ([], []), []
        for item in chain.rounds:
            starts = zip((conditional, unconditional), drawn, strict=True)
            rows = [[*start, *before, Drawn(item.ids)] for start, before in starts]
            logits = [logits_at_the_end(tiny, row, tiny.image_tokens, tiny.image_logits) for row in rows]
            mixed = guided(*logits, guidance) if guidance > 1 else logits[0]
            expected = mixed.log_softmax(-1).gather(-1, torch.tensor(item.ids)[:, None])[:, 0]
            np.testing.assert_allclose(item.logprobs, expected, atol=2e-4)
            looked += [Seen(item.pixels, tiny.image_tokens), layout.self_check]
            check_verdict(tiny, [*seen, *looked], item.verdict, settings)
            closed = Text(layout.closed(item.verdict.ids))
            rejected, full = [Drawn(item.ids), layout.self_check, closed], history == "full"
            drawn = tuple(
                [*(before if full else []), *rejected, *again]
                for before, again in zip(drawn, asked_again[:2], strict=True)
            )
            looked = [*looked, closed, *asked_again[2]] if full else []


def check_verdict(tiny, row, verdict, settings):
    logits = logits_at_the_end(tiny, [*row, Text(verdict.ids)], len(verdict.ids), tiny.text_logits)
    words = logits[0, [tiny.layout.special.yes, tiny.layout.special.no]].softmax(-1)
    assert abs(float(words[0]) - verdict.p_yes) < 1e-4
    rest = restrict(logits[1:], 1.0, settings.text_top_k, 1.0).gather(-1, torch.tensor(verdict.ids[1:])[:, None])
    expected = [float(words[0 if verdict.accepted else 1].log()), *rest[:, 0].tolist()]
    np.testing.assert_allclose(verdict.logprobs, expected, atol=2e-4)


@pytest.mark.parametrize("changes", [{}, {"history": "last"}, {"guidance": 1.0}, {"early_stop": True}], ids=str)
def test_the_policy_recomputes_edits_and_drawings_of_one_batch(tiny, changes):
    chains = edits(tiny, **changes)
    image, text = Policy(tiny, chains[0].settings, chunk=50)(rows_of(tiny.layout, chains))
    expected_image = torch.tensor([p for c in chains for r in c.rounds for p in r.logprobs])
    expected_text = torch.tensor([p for c in chains for r in c.rounds for p in r.verdict.logprobs])
    assert torch.allclose(image, expected_image, atol=1e-4) and torch.allclose(text, expected_text, atol=1e-4)


def test_neighbours_and_equal_sources_change_nothing(tiny):
    together = edits(tiny, early_stop=True)
    for row, chain in enumerate(together):
        alone, twin = introspect(tiny, [chain.task] * 2, chain.settings, first_row=row)
        assert [r.ids for r in alone.rounds] == [r.ids for r in chain.rounds]
        assert [r.verdict.ids for r in alone.rounds] == [r.verdict.ids for r in chain.rounds]
        assert twin.rounds[0].ids != alone.rounds[0].ids, "equal prompts share their computation, not their numbers"


def test_the_source_matters_in_both_streams(tiny):
    """The same instruction and random numbers on another source: other drafts, another verdict."""
    tasks = [Task("add a ring", render(case.source)) for case in CASES[:2]]
    first, second = (introspect(tiny, [task], Settings(rounds=1))[0] for task in tasks)
    assert first.rounds[0].ids != second.rounds[0].ids
    judged = [judge(tiny, [first.pixels], [task], Settings())[0].p_yes for task in tasks]
    assert judged[0] == pytest.approx(first.rounds[0].verdict.p_yes, abs=1e-5) and judged[0] != judged[1]


# ----------------------------------------------------------------------------------------- training


def test_only_the_result_of_an_edit_is_learnt(tiny):
    (source,) = tiny.sources([render(CASES[0].source)])
    ids = tuple(range(tiny.image_tokens))
    row = tiny.layout.redraw("remove the ring", [(Drawn(ids[::-1]), "No, it is there.")], ids, source=source)
    wanted, length = targets([row]), row_length(row)
    assert tuple(wanted.image_ids.tolist()) == ids and len(wanted.text_ids) == 0
    assert wanted.image_at.tolist() == list(range(length - tiny.image_tokens - 1, length - 1))
    judged = tiny.layout.judge("remove the ring", [], Seen(source.pixels, len(ids)), "No, it is.", source=source)
    assert tuple(targets([judged]).text_ids.tolist()) == tiny.layout.verdict("No, it is.").ids
    assert sum(isinstance(s, Seen) for s in judged) == 2 and not any(isinstance(s, Drawn) for s in judged)


def test_gradients_of_an_edit_reach_what_it_trains(tiny):
    tiny.freeze(vision=True)
    (source,) = tiny.sources([render(CASES[0].source)])
    ids = tuple(range(tiny.image_tokens))
    drawn = reached(tiny, tiny.layout.draw("remove the ring", ids, source=source))
    for part in ("generation_head", "generation_embeddings", "generation_aligner", "language_model.layers.0"):
        assert any(part in name for name in drawn), part
    assert not any("lm_head" in name or "vision_model" in name or "vqmodel" in name for name in drawn)
    judged = reached(tiny, tiny.layout.judge("x", [], Seen(source.pixels + 1, len(ids)), "Yes.", source=source))
    assert any("lm_head" in name for name in judged) and any("model.aligner" in name for name in judged)
    assert not any("generation" in name or "vision_model" in name for name in judged)


def reached(tiny, row) -> set[str]:
    tiny.zero_grad()
    sum(NextToken(tiny)([row])).backward()
    return {name for name, p in tiny.core.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}


# --------------------------------------------------------------------------------- record and API


def test_an_edit_is_saved_with_its_source_and_older_chains_still_load(tiny, tmp_path):
    edited, drawn = edits(tiny, rounds=1)[0], edits(tiny, rounds=1)[-1]
    edited.save(tmp_path / "edit")
    again = load_chain(tmp_path / "edit")
    assert again.source.ids == edited.source.ids and (again.source.pixels == edited.source.pixels).all()
    assert again.as_dict() == json.loads(json.dumps(edited.as_dict()), object_hook=_tuples)
    drawn.save(tmp_path / "draw")
    assert load_chain(tmp_path / "draw").source is None and "source" not in drawn.as_dict()
    assert not (tmp_path / "draw" / "source.png").exists()
    (tmp_path / "edit" / "source.png").unlink()
    with pytest.raises(UserError, match=r"source\.png"):
        load_chain(tmp_path / "edit")


def _tuples(item):
    return {key: tuple(value) if isinstance(value, list) and key != "rounds" else value for key, value in item.items()}


def test_edit_pairs_images_with_instructions_and_fits_them(tiny):
    model = JanusR1(tiny)
    wide = np.zeros((40, 100, 3), np.uint8)
    chains = model.edit(wide, ["add a ring", "add a star"], samples=2, rounds=1)
    assert [c.prompt for c in chains] == ["add a ring"] * 2 + ["add a star"] * 2
    assert all(c.source.pixels.shape == (64, 64, 3) for c in chains)
    assert len(model.edit([wide, wide[:30]], "add a ring", rounds=1)) == 2
    for images, instructions, complaint in (
        ([wide] * 2, ["add a ring"] * 3, "2 images but 3"),
        (wide, [], "0 instructions"),
        (wide, " ", "instruction is empty"),
        (wide[..., :2], "add a ring", "uint8"),
        (wide.astype(float), "add a ring", "uint8"),
    ):
        with pytest.raises(UserError, match=complaint):
            model.edit(images, instructions)


def test_reconstruct_fits_and_passes_through_the_tokenizer(tiny):
    model = JanusR1(tiny)
    wide = np.full((40, 100, 3), 200, np.uint8)
    (kept,) = model.reconstruct([wide])
    ids = torch.tensor(model.edit(wide, "add a ring", rounds=1)[0].source.ids)
    assert kept.shape == (64, 64, 3) and (kept == tiny.decode_image(ids[None])[0]).all()
