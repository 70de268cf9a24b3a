"""The cached decoder against transformers' own forward without a cache, on every stream."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from janus_r1.chain import Settings, Task
from janus_r1.engine import graph, network
from janus_r1.engine.decoder import Decoder
from janus_r1.engine.network import laid_out, layer_weights, linear
from janus_r1.engine.sampling import DRAW, SAY, guided, restrict, sample, uniforms
from janus_r1.introspect import introspect, judge
from janus_r1.model.loading import load
from janus_r1.model.matrices import adjoin
from janus_r1.segments import Drawn, Seen, Text, row_length

PROMPTS = ["a red circle", "a small blue square left of a large pink heart, and a star above a ring", "two rings"]
TASKS = [Task(prompt) for prompt in PROMPTS]


def uncached(model, row) -> torch.Tensor:
    """Hidden states [L, D] of one row by transformers' own LlamaModel, without any cache."""
    with torch.no_grad():
        return model.hidden(model.embed_rows([row]))[0]


def history(model, chain, upto: int, seeing: bool):
    """The segments that stand before draft ``upto`` (drawing) or its verdict (seeing)."""
    layout, row = model.layout, [model.layout.prompt(chain.prompt)]
    for index in range(upto + 1):
        item = chain.rounds[index]
        if index < upto or seeing:
            row.append(Seen(item.pixels, model.image_tokens) if seeing else Drawn(item.ids))
            row.append(layout.self_check)
        if index < upto:
            ids = item.verdict.ids
            closed = ids if ids[-1] == layout.special.eos else (*ids, layout.special.eos)
            row += [Text(closed), layout.regenerate]
    return row


@pytest.mark.parametrize("mode", ["full", "last"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_chain_logprobs_equal_uncached_forward(tiny, guidance, mode):
    """Every log-prob that the engine reported, recomputed from the whole sequence at once."""
    settings = Settings(
        rounds=3,
        guidance=guidance,
        early_stop=False,
        max_reason_tokens=9,
        history=mode,
        seed=5,
        text_temperature=1.0,
    )
    for chain in introspect(tiny, TASKS, settings):
        assert len(chain.rounds) == 3
        for index, item in enumerate(chain.rounds):
            shown = chain
            upto = index
            if mode == "last":  # only the previous round is in context
                kept = chain.rounds[max(0, index - 1) : index + 1]
                shown = type(chain)(chain.prompt, kept, 0, settings)
                upto = len(kept) - 1
            check_draft(tiny, shown, upto, item, settings)
            check_verdict(tiny, shown, upto, item, settings, alone=mode == "last")


def check_draft(model, chain, upto, item, settings):
    rows = [(*history(model, chain, upto, seeing=False), Drawn(item.ids))]
    prompt = rows[0][0]
    rows.append((model.layout.unconditional(prompt), *rows[0][1:]))
    logits = []
    for row in rows:
        start = row_length(row) - model.image_tokens
        logits.append(model.image_logits(uncached(model, row)[start - 1 : -1]))
    mixed = guided(*logits, settings.guidance) if settings.guidance > 1 else logits[0]
    expected = restrict(mixed, settings.temperature, 0, 1.0).gather(-1, torch.tensor(item.ids)[:, None])[:, 0]
    np.testing.assert_allclose(item.logprobs, expected.detach(), atol=2e-4)


def check_verdict(model, chain, upto, item, settings, alone):
    if alone:
        row = [model.layout.prompt(chain.prompt), Seen(item.pixels, model.image_tokens), model.layout.self_check]
    else:
        row = history(model, chain, upto, seeing=True)
    row = [*row, Text(item.verdict.ids)]
    start = row_length(row) - len(item.verdict.ids)
    logits = model.text_logits(uncached(model, tuple(row))[start - 1 : -1])
    special = model.layout.special
    first = logits[0, [special.yes, special.no]].softmax(-1).detach()
    assert abs(float(first[0]) - item.verdict.p_yes) < 1e-4
    expected = [float(first[0 if item.verdict.accepted else 1].log())]
    rest = restrict(logits[1:], settings.text_temperature, settings.text_top_k, 1.0)
    expected += rest.gather(-1, torch.tensor(item.verdict.ids[1:])[:, None])[:, 0].tolist()
    np.testing.assert_allclose(item.verdict.logprobs, expected, atol=2e-4)


def test_early_stop_rows_equal_rows_alone(tiny):
    """Rows that leave the batch, and rows that stay, do not depend on their neighbours."""
    settings = Settings(rounds=3, max_reason_tokens=6, seed=1, text_temperature=1.0)
    prompts = [f"a {c} {s}" for c in ("red", "blue", "pink") for s in ("circle", "square", "ring")]
    together = introspect(tiny, list(map(Task, prompts)), settings)
    assert {len(chain.rounds) for chain in together} != {3}, "no row stopped early: the test shows nothing"
    for row, chain in enumerate(together):
        alone = introspect(tiny, [Task(prompts[row])], settings, first_row=row)[0]
        assert [r.ids for r in alone.rounds] == [r.ids for r in chain.rounds]
        assert [r.verdict.ids for r in alone.rounds] == [r.verdict.ids for r in chain.rounds]


def test_same_settings_same_chain_and_other_seed_other_chain(tiny):
    first, again = (introspect(tiny, TASKS, Settings(seed=3)) for _ in range(2))
    other = introspect(tiny, TASKS, Settings(seed=4))
    assert [c.as_dict() for c in first] == [c.as_dict() for c in again]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert [c.rounds[0].ids for c in first] != [c.rounds[0].ids for c in other]


def test_batches_do_not_change_chains(tiny):
    settings = Settings(rounds=2, seed=2)
    whole = introspect(tiny, TASKS, settings)
    split = introspect(tiny, TASKS, settings, max_batch=1)
    assert [[r.ids for r in c.rounds] for c in whole] == [[r.ids for r in c.rounds] for c in split]


def test_judge_equals_the_chains_own_verdict(tiny):
    chain = introspect(tiny, [Task("a red circle")], Settings(rounds=1, seed=7))[0]
    verdict = judge(tiny, [chain.pixels], [Task("a red circle")], Settings(seed=7))[0]
    assert verdict.text == chain.rounds[0].verdict.text
    assert abs(verdict.p_yes - chain.rounds[0].verdict.p_yes) < 1e-5


def test_final_best_takes_the_highest_p_yes(tiny):
    chains = introspect(tiny, TASKS, Settings(rounds=3, early_stop=False, final="best"))
    for chain in chains:
        p = [r.verdict.p_yes for r in chain.rounds]
        assert p[chain.final] == max(p)


def test_greedy_image_equals_transformers_generate(tiny):
    """Same prompt, guidance and argmax: the ids of transformers' own generate."""
    prompts = [tiny.layout.prompt(p) for p in ("a circle and a star", "a star and a circle")]
    assert len(prompts[0]) == len(prompts[1])
    special = tiny.layout.special
    ids = torch.tensor([p.ids for p in prompts])
    tiny.core.generation_config.pad_token_id = special.pad
    tiny.core.generation_config.bos_token_id = special.bos
    tiny.core.generation_config.generation_kwargs = {"boi_token_id": special.begin_of_image}
    theirs = tiny.core.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        generation_mode="image",
        do_sample=False,
        guidance_scale=3.0,
    )
    decoder = Decoder(tiny)
    stream = decoder.open(prompts, [tiny.layout.unconditional(p) for p in prompts])
    ours, _ = decoder.draw(stream, torch.zeros(2, tiny.image_tokens), guidance=3.0, temperature=0.0)
    assert ours.tolist() == theirs.tolist()


def test_sampling_follows_the_distribution():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0]).repeat(40_000, 1)
    allowed = restrict(logits, 1.0, top_k=3, top_p=1.0)
    tokens, logprobs = sample(allowed, torch.rand(40_000, generator=torch.Generator().manual_seed(0)))
    shares = torch.bincount(tokens, minlength=4) / 40_000
    np.testing.assert_allclose(shares, allowed[0].exp(), atol=0.01)
    np.testing.assert_allclose(logprobs[:5], allowed[0][tokens[:5]])


def test_top_p_keeps_the_smallest_set_that_reaches_it():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert torch.isfinite(restrict(logits, 1.0, 0, 0.7)).tolist() == [[True, True, False, False]]
    assert torch.isfinite(restrict(logits, 0.0, 0, 1.0)).tolist() == [[True, False, False, False]]


def test_sampling_at_the_edge_never_picks_a_forbidden_token():
    logprobs = restrict(torch.tensor([[0.0, 0.0, 5.0, 5.0]]).repeat(2, 1), 1.0, 2, 1.0).flip(-1)
    tokens, chosen = sample(logprobs, torch.tensor([0.0, 1.0 - 2**-24]))
    assert torch.isfinite(chosen).all() and set(tokens.tolist()) <= {0, 1}


def test_random_numbers_belong_to_the_row():
    assert torch.equal(uniforms(1, [4, 9], 0, DRAW, 8)[1], uniforms(1, [9], 0, DRAW, 8)[0])
    assert not torch.equal(uniforms(1, [9], 0, DRAW, 8), uniforms(1, [9], 1, DRAW, 8))


def test_keep_and_fork_leave_rows_intact(tiny):
    decoder = Decoder(tiny)
    prompts = [tiny.layout.prompt(p) for p in PROMPTS]
    stream = decoder.open(prompts)
    copy = decoder.fork(stream)
    decoder.keep(copy, [2])
    row = (tiny.layout.self_check,)
    decoder.feed(copy, [row])
    decoder.feed(stream, [row] * 3)
    torch.testing.assert_close(copy.last[0], stream.last[2])
    torch.testing.assert_close(copy.last[0], uncached(tiny, (prompts[2], *row))[-1], atol=1e-4, rtol=1e-3)


def test_joined_matrices_stay_transformers_own_memory(tiny):
    """What training changes in place, the next decoder reads; and joining again moves nothing."""
    language = adjoin(tiny.language)
    joined = layer_weights(language)[0].qkv
    with torch.no_grad():
        language.layers[0].self_attn.k_proj.weight.fill_(7.0)
    start = language.layers[0].self_attn.q_proj.weight.shape[0]
    assert (joined[start : start + 4] == 7.0).all()
    assert layer_weights(adjoin(tiny.language))[0].qkv.data_ptr() == joined.data_ptr()
    assert (Decoder(tiny).network.layers[0].qkv[start : start + 4] == 7.0).all()


def test_a_decoder_changes_nothing_of_its_model(tiny):
    """Neither where its parameters lie, joined or not, nor what they are."""
    for joining in (False, True):
        model = tiny
        if joining:
            adjoin(model.language)
        before = {name: (p.data_ptr(), p.detach().clone()) for name, p in model.named_parameters()}
        joined = layer_weights(model.language)[0].qkv
        assert torch.equal(
            joined[: model.language.config.hidden_size], model.language.layers[0].self_attn.q_proj.weight
        )
        Decoder(model).open([model.layout.prompt("a red circle")])
        for name, p in model.named_parameters():
            assert p.data_ptr() == before[name][0] and torch.equal(p, before[name][1]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("blocked", [True, False])
def test_matrices_laid_out_anew_multiply_as_before(tiny, monkeypatch, dtype, blocked):
    """All four of a layer, for one row and for many, with oneDNN's blocked matrices and without them."""
    if not blocked:
        monkeypatch.setattr(network, "has_blocked", lambda: False)
    plain = layer_weights(adjoin(tiny.language).to(dtype))
    copies = laid_out(plain)
    assert copies[0].qkv.is_mkldnn == (dtype == torch.bfloat16 and network.has_blocked())
    for layer, copy in zip(plain, copies, strict=True):
        for name in network.MATRICES:
            matrix = getattr(layer, name)
            for rows in (1, 33):
                x = torch.randn(rows, matrix.shape[1]).to(dtype)
                exact = (x.double() @ matrix.double().T).to(dtype)
                torch.testing.assert_close(linear(x, getattr(copy, name)), exact)


def test_only_a_small_models_matrices_are_copied(tiny, monkeypatch):
    monkeypatch.setattr(network, "COPIED", {torch.float32: 1000})
    plain = layer_weights(adjoin(tiny.language))
    assert laid_out(plain)[0].qkv.data_ptr() == plain[0].qkv.data_ptr()


# ------------------------------------------------------------------------------------- static shapes


def drawn(model, graph: bool, guidance: float, top_k: int = 0):
    """Two images of every prompt in one chain, rows leaving between them; then what follows."""
    decoder = Decoder(model, graph=graph)
    prompts = [model.layout.prompt(p) for p in PROMPTS]
    unconditional = [model.layout.unconditional(p) for p in prompts] if guidance > 1 else None
    stream = decoder.open(prompts, unconditional)
    uniform = uniforms(3, [0, 1, 2], 0, DRAW, model.image_tokens)
    first = decoder.draw(stream, uniform, guidance, top_k=top_k)
    decoder.keep(stream, [0, 1])
    rest = [(Drawn(tuple(first[0][row].tolist()[-1:])), model.layout.regenerate) for row in (0, 1)]
    decoder.feed(stream, rest)
    second = decoder.draw(stream, uniform[:2], guidance, top_k=top_k)
    return [*first, *second, stream.last], stream.lengths


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("top_k", [0, 7])
def test_static_steps_draw_what_the_growing_path_draws(tiny, guidance, top_k):
    """The step that a GPU captures, run as it is: rows of unequal length, several reading ends."""
    (ids, logprobs, ids2, logprobs2, last), lengths = drawn(tiny, True, guidance, top_k)
    (ids_, logprobs_, ids2_, logprobs2_, last_), lengths_ = drawn(tiny, False, guidance, top_k)
    assert lengths == lengths_ and len(set(lengths)) == 2 and max(lengths) > 128
    assert torch.equal(ids, ids_) and torch.equal(ids2, ids2_)
    torch.testing.assert_close(logprobs, logprobs_, atol=1e-4, rtol=0)
    torch.testing.assert_close(logprobs2, logprobs2_, atol=1e-4, rtol=0)
    torch.testing.assert_close(last, last_, atol=1e-4, rtol=1e-4)


def test_a_static_step_never_asks_the_host(tiny, monkeypatch):
    """Nothing in a step may read a value back, and all it keeps stays where it was: else no graph could hold it."""
    decoder = Decoder(tiny, graph=True)
    stream = decoder.open([tiny.layout.prompt(p) for p in PROMPTS])
    uniform = uniforms(3, [0, 1, 2], 0, DRAW, tiny.image_tokens)
    first, _ = decoder.draw(stream, uniform)
    (steps,) = decoder.graphs.held.values()
    where = [value.data_ptr() for value in vars(steps).values() if isinstance(value, torch.Tensor)]
    decoder.rewind(stream, [len(tiny.layout.prompt(p)) - 1 for p in PROMPTS])
    decoder.feed(stream, [(Text(tiny.layout.prompt(p).ids[-1:]),) for p in PROMPTS])
    for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__", "nonzero"):
        monkeypatch.setattr(torch.Tensor, name, lambda *a, name=name: pytest.fail(f"the host asked: {name}"))
    again, _ = decoder.draw(stream, uniform)
    monkeypatch.undo()
    assert torch.equal(first, again) and list(decoder.graphs.held.values()) == [steps], (
        "the same shape starts no new buffers"
    )
    assert where == [value.data_ptr() for value in vars(steps).values() if isinstance(value, torch.Tensor)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="captures a CUDA graph")
def test_captured_steps_draw_what_eager_ones_draw(tiny):
    tiny = tiny.to("cuda")
    captured, eager = (drawn(tiny, graph, 3.0)[0] for graph in (True, False))
    assert (captured[0] == eager[0]).float().mean() > 0.9  # kernels differ by shape, and a tie may fall otherwise


def test_verdicts_keep_float32_probabilities_in_bfloat16(tiny):
    """The head's own bfloat16 output would round P(Yes) to a few per cent."""
    tiny.to(torch.bfloat16)
    tiny.core.model.vqmodel.float()
    decoder, special = Decoder(tiny), tiny.layout.special
    stream = decoder.open([tiny.layout.prompt(text) for text in ("a red circle", "two blue stars", "a ring")])
    hidden, head = stream.last.double(), tiny.core.lm_head.weight[[special.yes, special.no]].double()
    said = decoder.say(stream, uniforms(0, [0, 1, 2], 0, SAY, 1), (special.yes, special.no))
    assert torch.allclose(said.first_probs.double(), (hidden @ head.T).softmax(-1), atol=1e-6)


def test_cache_in_8_bits_changes_little_and_survives_growing_and_leaving(tiny):
    settings = Settings(rounds=3, guidance=3.0, early_stop=False, max_reason_tokens=6, seed=5, temperature=0)
    whole = introspect(tiny, TASKS, settings)
    tiny.cache_dtype = torch.float8_e4m3fn
    rounded = introspect(tiny, TASKS, settings)
    same = [np.mean(np.equal(a.rounds[0].ids, b.rounds[0].ids)) for a, b in zip(whole, rounded, strict=True)]
    assert 0.3 < np.mean(same) < 1  # random weights decide by a hair, so that one other id changes all after it
    decoder = Decoder(tiny)
    stream = decoder.open([tiny.layout.prompt(prompt) for prompt in PROMPTS])
    kept = stream.cache.keys.view(torch.uint8).clone()
    stream.cache.reserve(stream.cache.capacity)
    decoder.keep(stream, [2, 0])
    assert stream.cache.keys.dtype == torch.float8_e4m3fn
    assert torch.equal(stream.cache.keys.view(torch.uint8)[:, :, : kept.shape[2]], kept[:, [2, 0]])


def test_graphs_share_the_memory_of_those_that_live(tiny, monkeypatch):
    """A pool whose last graph is gone must not be named again: torch stops there."""
    graphs, used = Decoder(tiny, graph=True).graphs, []

    class Graph:
        def pool(self):
            return self.own

    @contextmanager
    def recording(graph, pool):
        graph.own = pool if pool is not None else f"pool {len(used)}"
        used.append(graph.own)
        yield

    class Held:
        def __init__(self, captures: bool) -> None:
            self.captured = [graphs.capture(lambda: None)] if captures else []

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    for shape in range(2):
        graphs.keep((shape,), lambda: Held(True))
    for shape in range(2, 2 + graph.KEPT):
        assert (0,) in graphs.held or shape > graph.KEPT  # the oldest leaves first, and only for want of room
        graphs.keep((shape,), lambda: Held(False))
    assert len(graphs.held) == graph.KEPT
    graphs.capture(lambda: None)
    assert used == ["pool 0", "pool 0", "pool 2"]


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_where_sums_are_coarse_an_image_does_not_depend_on_the_lengths_of_the_others(dtype):
    """On a CPU: prompts of 9 to 30 tokens, alone and together, and what is said of their images."""
    decoder = Decoder(load("tiny-sft", dtype))
    layout, model = decoder.model.layout, decoder.model
    texts = ["a red circle", "two rings", "a small blue square left of a large pink heart, and a star above a ring"]
    texts += ["three green stars", "a pink cross left of a star"]

    def drawn(rows: list[int]) -> list[tuple]:
        prompts = [layout.prompt(texts[row]) for row in rows]
        stream = decoder.open(prompts, [layout.unconditional(prompt) for prompt in prompts])
        ids, logprobs = decoder.draw(stream, uniforms(0, rows, 0, DRAW, model.image_tokens), 1.5)
        seeing = decoder.open(prompts)
        decoder.feed(seeing, [(Drawn(tuple(row)), layout.self_check) for row in ids.tolist()])
        said = decoder.say(seeing, uniforms(0, rows, 0, SAY, 12))
        return list(zip(ids.tolist(), logprobs.tolist(), said.ids, said.logprobs, strict=True))

    assert drawn(list(range(5))) == [row for number in range(5) for row in drawn([number])]
