"""Training: gradients reach what they should, and a killed run resumes bit for bit."""

from __future__ import annotations

import json
import random
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from janus_r1.data.build import BuildRecipe, build
from janus_r1.data.candidates import Candidate, CandidateRows, CandidateSet, write_part
from janus_r1.errors import UserError
from janus_r1.segments import Drawn, Seen, row_length
from janus_r1.train.checkpoint import newest_checkpoint
from janus_r1.train.loop import RunOptions, lr_share
from janus_r1.train.objective import NextToken
from janus_r1.train.optim import Ema, Muon, orthogonalise
from janus_r1.train.prepare import prepare
from janus_r1.train.sft import Parts, SftRecipe, micro_batches, rows_loss, step_rows
from janus_r1.worlds.shapes.scene import render
from janus_r1.worlds.shapes.training.pretrain import PretrainRecipe, pretrain
from janus_r1.worlds.shapes.training.vq import VqRecipe, VqStage, crowded, patch_groups, patch_spread, train_vq
from killing import kill_after_first_checkpoint, run_code


def options(out: Path, **changes) -> RunOptions:
    """Six steps with a checkpoint every two, on one thread."""
    return RunOptions(**{"out": str(out), "steps": 6, "save_every": 2, "log_every": 1, "threads": 1} | changes)


# --------------------------------------------------------------------------------- kill and resume

SMALL = {"draw_rows": 4, "see_rows": 2, "hidden": 64, "layers": 1, "tokenizer_prompts": 40}


@pytest.fixture(scope="module")
def parts(words, tmp_path_factory):
    """A trained (for six steps) tokenizer and candidates of a random model, for the later stages."""
    root = tmp_path_factory.mktemp("parts")
    vq = train_vq(VqRecipe(run=options(root / "vq"), batch=2, codes=32, continuous_steps=2))
    base = pretrain(PretrainRecipe(run=options(root / "base"), vq=str(vq), **SMALL))
    scored = [candidate(prompt, score) for prompt in range(4) for score in (1.0, 0.3, 0.1)]
    images = np.random.default_rng(0).integers(0, 256, (len(scored), 64, 64, 3), dtype=np.uint8)
    write_part(root / "candidates" / "part_00000", scored, images)
    return {"vq": str(vq), "base": str(base), "candidates": str(root / "candidates")}


def stage_code(stage: str, out: Path, parts: dict[str, str]) -> str:
    """A program that runs one stage; the test runs it whole, and killed and resumed."""
    recipes = {
        "train_vq": "VqRecipe(run=run, batch=2, codes=32, continuous_steps=2)",
        "pretrain": f"PretrainRecipe(run=run, vq={parts['vq']!r}, **{SMALL})",
        "sft": f"SftRecipe(run=run, model={parts['base']!r}, candidates={parts['candidates']!r}, rows=8)",
    }
    module = {"train_vq": "worlds.shapes.training.vq", "pretrain": "worlds.shapes.training.pretrain"}.get(
        stage, "train.sft"
    )
    recipe = recipes[stage]
    return (
        f"import sys\nfrom janus_r1.{module} import *\nfrom janus_r1.train.loop import RunOptions\n"
        f"run = RunOptions(out={str(out)!r}, steps=12, save_every=3, preview_every=4, log_every=1, threads=1, "
        f"ema=0.5)\n"
        f"{stage}({recipe}, resume='resume' in sys.argv)\n"
    )


@pytest.mark.parametrize("stage", ["train_vq", "pretrain", "sft"])
def test_killed_and_resumed_equals_uninterrupted(stage, parts, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run_code(stage_code(stage, whole, parts))
    kill_after_first_checkpoint(stage_code(stage, broken, parts), broken)
    assert newest_checkpoint(broken).name < "step_0000012", "killed too late to show anything"
    run_code(stage_code(stage, broken, parts), "resume")
    for file in ("model.safetensors", "ema.safetensors"):
        one, other = (load_file(newest_checkpoint(run) / file) for run in (whole, broken))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert (whole / "metrics.jsonl").read_text() == (broken / "metrics.jsonl").read_text()


def test_moving_average_by_hand():
    module = torch.nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(1.0)
    ema = Ema(module, decay=0.25)
    module.weight.data.fill_(2.0)
    ema.update()  # of the decay only (1 + 1) / (10 + 1) has warmed up
    assert ema.average["weight"].item() == pytest.approx(1 * 2 / 11 + 2 * 9 / 11)
    module.weight.data.fill_(4.0)
    ema.update()
    ema.update()
    after = ((1 * 2 / 11 + 2 * 9 / 11) / 4 + 3) / 4 + 3
    assert ema.average["weight"].item() == pytest.approx(after)
    assert module.weight.item() == 4.0, "training goes on with the weights themselves"
    ema.put()
    assert module.weight.item() == pytest.approx(after)


def test_the_model_of_a_run_is_the_moving_average(tmp_path):
    """Also when it only resumes a run that is over."""
    run = options(tmp_path, steps=3, ema=0.5)
    recipe = VqRecipe(run=run, batch=1, codes=8, continuous_steps=1)
    for resume in (False, True):
        train_vq(recipe, resume)
        checkpoint = newest_checkpoint(tmp_path)
        average, last = (load_file(checkpoint / file) for file in ("ema.safetensors", "model.safetensors"))
        saved = load_file(tmp_path / "vq" / "model.safetensors")
        trained = {name: value for name, value in saved.items() if f"model.{name}" in average}
        assert trained and all(torch.equal(value, average[f"model.{name}"]) for name, value in trained.items())
        assert any(not torch.equal(average[name], last[name]) for name in average if name in last)
    with pytest.raises(UserError, match="ema must be"):
        train_vq(replace(recipe, run=replace(run, ema=1.0)), resume=True)


def test_starting_over_an_existing_run_is_refused(tmp_path):
    recipe = VqRecipe(run=options(tmp_path, steps=2), batch=1, codes=8, continuous_steps=1)
    train_vq(recipe)
    with pytest.raises(UserError, match="--resume"):
        train_vq(recipe)
    with pytest.raises(UserError, match="recipe changed in codes"):
        train_vq(VqRecipe(run=options(tmp_path, steps=4), batch=1, codes=16, continuous_steps=1), resume=True)


def test_no_checkpoints_on_the_way_still_leaves_one_at_the_end(tmp_path):
    run = RunOptions(out=str(tmp_path), steps=3, save_every=0, preview_every=0, threads=1)
    train_vq(VqRecipe(run=run, batch=1, codes=8, continuous_steps=1))
    assert [checkpoint.name for checkpoint in (tmp_path / "checkpoints").iterdir()] == ["step_0000003"]


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path):
    recipe = VqRecipe(run=options(tmp_path), batch=1, codes=8, lr=1e30, continuous_steps=9)
    with pytest.raises(UserError, match="not a number"):
        train_vq(recipe)


# --------------------------------------------------------------------------------------- gradients


def test_gradients_reach_what_each_task_trains(tiny):
    tiny.freeze(vision=False)
    module, core, picture = NextToken(tiny), tiny.core, np.zeros((64, 64, 3), np.uint8)
    ids = tuple(range(tiny.image_tokens))

    def reached(row) -> set[str]:
        module.zero_grad()
        sum(module([row])).backward()
        return {name for name, p in core.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}

    def any_of(part, names):
        return any(part in name for name in names)

    drawn = reached(tiny.layout.redraw("a ring", [(Drawn(ids), "No, red.")], ids))
    for part in ("generation_head", "generation_embeddings", "generation_aligner", "language_model.layers.0"):
        assert any_of(part, drawn), part
    assert not any_of("lm_head", drawn) and not any_of("vision_model", drawn) and not any_of("vqmodel", drawn)
    judged = reached(tiny.layout.judge("a ring", [], Seen(picture + 9, tiny.image_tokens), "Yes, it does."))
    for part in ("lm_head", "vision_model", "model.aligner", "language_model.layers.0"):
        assert any_of(part, judged), part
    assert not any_of("generation_head", judged) and not any_of("vqmodel", judged)


def test_quantisation_is_straight_through():
    """The encoder learns from the reconstruction although ids are integers."""
    stage = VqStage(VqRecipe(batch=2, codes=16, continuous_steps=0))
    loss, _ = stage.loss(stage.module, stage.batches(0)[0], step=0)
    loss.backward()
    grad = stage.module.model.encoder.conv_in.weight.grad
    assert grad is not None and float(grad.abs().sum()) > 0


def test_rows_do_not_see_each_others_padding(tiny):
    """A short row's loss is the same alone and beside a longer one."""
    short, long = tiny.layout.draw("a ring", (3,) * 64), tiny.layout.draw("a red ring and a blue star", (5,) * 64)
    module = NextToken(tiny)
    with torch.no_grad():
        apart = [module([row])[0] for row in (short, long)]
        together, _ = module([short, long])
    torch.testing.assert_close(together, sum(apart) / 2)


def test_training_computes_what_transformers_does(tiny):
    rows = [tiny.layout.draw(text, tuple(range(tiny.image_tokens))) for text in ("a red circle", "two blue stars")]
    embeddings = tiny.embed_rows(rows)
    language = tiny.core.model.language_model
    expected = language(inputs_embeds=embeddings, use_cache=False).last_hidden_state
    prepare(tiny, train_vision=False, compile_model=False)  # plain attention, whose mask is ours
    assert language.config._attn_implementation == "eager"
    assert torch.allclose(tiny.hidden(embeddings), expected, atol=1e-4)


def test_muon_brings_singular_values_near_one():
    values = torch.linalg.svdvals(orthogonalise(torch.randn(24, 60, generator=torch.Generator().manual_seed(0))))
    assert float(values.min()) > 0.6 and float(values.max()) < 1.3


def test_muon_takes_matrices_of_one_shape_together_as_it_takes_one_alone():
    generator = torch.Generator().manual_seed(0)
    shapes = [(24, 60), (24, 60), (60, 24), (24, 60), (8, 3, 3, 3)]
    together = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    alone = [torch.nn.Parameter(p.detach().clone()) for p in together]
    optimizers = [Muon(together, lr=0.1, weight_decay=0.1), *(Muon([p], lr=0.1, weight_decay=0.1) for p in alone)]
    for _ in range(3):
        for one, other in zip(together, alone, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert all(torch.allclose(one, other, atol=1e-3) for one, other in zip(together, alone, strict=True))


def gradients(module, loss) -> dict[str, torch.Tensor]:
    module.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def test_recomputing_activations_changes_no_gradient(tiny):
    prepare(tiny, train_vision=False, compile_model=False)
    module, rows = NextToken(tiny), [tiny.layout.draw("a red circle", tuple(range(tiny.image_tokens)))]
    kept = gradients(module, module(rows)[0])
    prepare(tiny, train_vision=False, compile_model=False, recompute=True)
    assert tiny.core.model.language_model.is_gradient_checkpointing
    again = gradients(module, module(rows)[0])
    assert kept.keys() == again.keys()
    assert all(torch.allclose(kept[name], again[name], atol=1e-6) for name in kept)


def test_micro_batches_of_finetuning_add_up_to_the_whole(parts, tmp_path):
    found = []
    for micro_batch, batches in ((0, 1), (4, 2)):
        recipe = SftRecipe(
            run=options(tmp_path),
            model=parts["base"],
            candidates=parts["candidates"],
            rows=8,
            shares={"draw": 0.5, "judge": 0.25, "redraw": 0.25},
            micro_batch=micro_batch,
            word_weight=None,
        )
        made = Parts(recipe)
        of_step = micro_batches(step_rows(made, 0), micro_batch)
        assert len(of_step) == batches
        for kind in (0, 1):  # alike in length: what is padded is computed, too
            lengths = [row_length(row) for batch in of_step for row in batch[kind]]
            assert batches == 1 or lengths == sorted(lengths)
        loss = sum(rows_loss(made.module, b, parts=len(of_step), text_weight=1.0)[0] for b in of_step)
        found.append(gradients(made.module, loss))
    for name in found[0]:
        if "generation_head" in name:  # image losses are means over equally many tokens; verdicts differ in length
            assert torch.allclose(found[0][name], found[1][name], atol=1e-5), name


def test_learning_rate_is_a_trapezoid():
    o = RunOptions(steps=100, warmup=10, cooldown=0.5, final_lr=0.02)
    shares = [lr_share(step, o) for step in range(100)]
    assert shares[0] == pytest.approx(0.1) and shares[9] == shares[49] == 1.0
    assert shares[75] == pytest.approx(0.5) and min(shares[-3:]) >= 0.02


# -------------------------------------------------------------------------------------- candidates


def candidate(prompt_id: int, p_yes: float, source: str = "draft@1.0") -> Candidate:
    word = "Yes" if p_yes == 1 else "No"
    return Candidate(prompt_id, f"a ring {prompt_id}", (prompt_id,) * 64, p_yes, f"{word}, {p_yes}.", source)


def test_examples_keep_the_thresholds(tmp_path, tiny):
    scored = [candidate(p, score) for p in range(4) for score in (1.0, 0.75, 0.6, 0.49, 0.1)]
    images = np.stack([np.full((64, 64, 3), i, np.uint8) for i in range(len(scored))])
    write_part(tmp_path / "part_00000", scored, images)
    examples = CandidateRows(CandidateSet(tmp_path), tiny.layout, 0.5)
    chosen = {c.p_yes for c in scored if c.p_yes >= 0.8}, {0.75, 1.0}, {0.49, 0.1}
    pools = examples.drawn
    for pool, expected in zip((pools.good, pools.yes, pools.no), chosen, strict=True):
        assert {scored[i].p_yes for indices in pool.values() for i in indices} == expected
        assert all(scored[i].prompt == prompt for prompt, indices in pool.items() for i in indices)


def test_own_drafts_are_judged_as_often_wrong_as_they_come(tmp_path, tiny):
    scored = [candidate(0, 1.0), candidate(0, 0.1), candidate(0, 1.0, "rendering"), candidate(0, 0.2, "near miss")]
    scored += [candidate(1, 0.3), candidate(1, 0.4), candidate(1, 0.1), candidate(1, 1.0, "rendering")]
    images = np.stack([np.full((64, 64, 3), i, np.uint8) for i in range(len(scored))])
    write_part(tmp_path / "own" / "part_00000", scored, images)
    write_part(tmp_path / "others" / "part_00000", [candidate(5, 1.0), candidate(5, 0.1)], images[:2] + 100)
    own, others = CandidateSet(tmp_path / "own"), CandidateSet(tmp_path / "others")
    examples = CandidateRows(others, tiny.layout, 0.5, [own])
    rng, judged = random.Random(0), {True: [], False: []}
    for positive, seen in judged.items():
        for _ in range(400):
            (picture,) = [s for s in examples.judge(rng, 0, positive) if isinstance(s, Seen)]
            seen.append(int(picture.pixels[0, 0, 0]))
    assert set(judged[True]) == {0} and set(judged[False]) == {1, 4, 5, 6}
    assert 240 < sum(index >= 4 for index in judged[False]) < 360  # three of four wrong drafts, not every second
    drawn = [s for s in examples.redraw(rng, 1, 0.0) if isinstance(s, Drawn)]
    assert [s.ids for s in drawn] == [(5,) * 64, (5,) * 64]  # drawing stays with the other candidates
    (tmp_path / "own" / "part_00000" / "candidates.jsonl").write_text(
        "".join(json.dumps(asdict(replace(c, source="rendering"))) + "\n" for c in scored)
    )
    with pytest.raises(UserError, match="no right or no wrong draft"):
        CandidateRows(others, tiny.layout, 0.5, [CandidateSet(tmp_path / "own")])


def test_drafts_of_several_models_are_judged_as_often_and_drawn_together(tmp_path, tiny):
    images = np.stack([np.full((64, 64, 3), i, np.uint8) for i in range(9)])
    own = [candidate(0, 1.0), *(candidate(0, 0.1) for _ in range(5))]
    write_part(tmp_path / "own" / "part_00000", own, images[:6])
    write_part(tmp_path / "others" / "part_00000", [candidate(3, 1.0), candidate(3, 0.2)], images[6:8])
    write_part(tmp_path / "more" / "part_00000", [candidate(0, 1.0, "rendering")], images[8:])
    sets = [CandidateSet(tmp_path / name) for name in ("own", "others")]
    both = CandidateSet(tmp_path / "others", tmp_path / "own", tmp_path / "more")
    assert len(both) == 9 and [int(both.image(i)[0, 0, 0]) for i in range(9)] == [6, 7, 0, 1, 2, 3, 4, 5, 8]
    examples, rng = CandidateRows(both, tiny.layout, 0.5, sets), random.Random(0)
    seen = [next(s for s in examples.judge(rng, 0, False) if isinstance(s, Seen)) for _ in range(300)]
    assert 110 < sum(int(s.pixels[0, 0, 0]) == 7 for s in seen) < 190  # every second, though one of six
    assert sorted(map(len, examples.drawn.good.values())) == [1, 2], "a prompt is the same in all folders"


def test_half_written_candidates_are_refused(tmp_path):
    write_part(tmp_path / "part_00000", [candidate(0, 1.0)], np.zeros((1, 64, 64, 3), np.uint8))
    path = tmp_path / "part_00000" / "candidates.jsonl"
    path.write_text(path.read_text()[:40])
    with pytest.raises(UserError, match="build again"):
        CandidateSet(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [("ids", [1.5] * 64, "whole numbers"), ("ids", "x", "ids"), ("p_yes", 1.5, "not in"), ("p_yes", "0.9", "p_yes"),
     ("prompt", 3, "prompt"), ("reason", "No <begin_of_image>", "special token"), ("prompt", "  ", "empty")],
)  # fmt: skip
def test_candidates_that_are_none_are_refused_with_their_line(tmp_path, name, value, why):
    write_part(tmp_path / "part_00000", [candidate(0, 1.0)], np.zeros((1, 64, 64, 3), np.uint8))
    path = tmp_path / "part_00000" / "candidates.jsonl"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(UserError, match=rf"line 1.*{why}"):
        CandidateSet(tmp_path)


def test_candidates_of_another_image_tokenizer_are_refused(tmp_path):
    write_part(tmp_path / "part_00000", [candidate(0, 1.0)], np.zeros((1, 64, 64, 3), np.uint8))
    found = CandidateSet(tmp_path)
    most = max(found[0].ids)
    found.check(64, most + 1, 64)
    for told, (tokens, codes, size) in {
        "ids up to": (64, most, 64),
        "ids up": (576, most + 1, 64),
        "64 x 64": (64, most + 1, 384),
    }.items():
        with pytest.raises(UserError, match=told):
            found.check(tokens, codes, size)
    for images in (np.zeros((1, 64, 64), np.uint8), np.zeros((1, 64, 64, 3), np.float32), np.zeros(1, "O")):
        np.save(tmp_path / "part_00000" / "images.npy", images)
        with pytest.raises(UserError, match=r"images\.npy"):
            CandidateSet(tmp_path)


def test_candidates_without_wrong_images_are_refused(tmp_path, tiny):
    write_part(tmp_path / "part_00000", [candidate(0, 1.0)], np.zeros((1, 64, 64, 3), np.uint8))
    with pytest.raises(UserError, match="nothing to redraw"):
        CandidateRows(CandidateSet(tmp_path), tiny.layout, None)
    with pytest.raises(UserError, match="nothing to say No to"):
        CandidateRows(CandidateSet(tmp_path), tiny.layout, None, wanted=["draw", "judge"])
    row = CandidateRows(CandidateSet(tmp_path), tiny.layout, None, wanted=["draw"]).draw(random.Random(0), 0.0)
    assert row[-1] == Drawn((0,) * 64, learn=True), "right images alone are enough to draw"


def test_candidates_of_chosen_families(parts, tmp_path):
    recipe = BuildRecipe(out=str(tmp_path), model=parts["base"], prompts=4, part=4, temperatures=[1.0], renderings=1)
    recipe.families = ["counting"]
    build(recipe)
    assert all(re.search("two|three|four", c.prompt) for c in CandidateSet(tmp_path))
    recipe.families = ["counting", "size"]
    with pytest.raises(UserError, match="no family size: choose from single_object"):
        build(recipe)


def test_building_resumes_without_changing_what_exists(parts, tmp_path):
    recipe = BuildRecipe(out=str(tmp_path), model=parts["base"], prompts=8, part=4)
    build(recipe)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    shutil.rmtree(tmp_path / "part_00001")
    build(recipe, resume=True)
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match="--resume"):
        build(recipe)
    with pytest.raises(UserError, match="begun with another guidance"):
        build(replace(recipe, guidance=2.0), resume=True)


def test_equal_patches_are_found_and_their_spread_measured():
    pixels = torch.zeros(2, 3, 16, 16)
    pixels[1, :, 8:, 8:] = 0.5
    groups = patch_groups(pixels, grid=2)
    assert len(set(groups.tolist())) == 2 and (groups[:7] == groups[0]).all()
    z = torch.zeros(2, 2, 2, 1)
    z[0, 0, 0] = 7.0
    # One group of seven: one latent at 7, six at 0, mean 1; the odd patch is alone and adds nothing.
    assert float(patch_spread(z, groups)) == pytest.approx((36 + 6 * 1) / 8)


def test_of_two_crowded_codes_the_rarer_one_moves():
    codes = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.05], [0.0, 1.0], [0.0, -1.0]]), dim=-1)
    assert crowded(codes, torch.tensor([1.0, 5.0, 0.1, 0.0]), 0.1).tolist() == [True, False, False, False]
    assert crowded(codes, torch.tensor([2.0, 2.0, 0.1, 0.0]), 0.1).tolist() == [False, True, False, False]


def test_candidates_never_show_a_held_out_pair(parts, tmp_path, monkeypatch):
    """Drafts, renderings and near misses of training prompts: what is rendered avoids held-out pairs."""
    from janus_r1.worlds.shapes import world as building
    from janus_r1.worlds.shapes.scene import HELD_OUT

    rendered = []
    monkeypatch.setattr(building, "render", lambda scene: rendered.append(scene) or render(scene))
    build(BuildRecipe(out=str(tmp_path), model=parts["base"], prompts=64, part=64, temperatures=[], near_misses=6))
    assert len(rendered) == 64 * 8
    assert not [o for scene in rendered for o in scene.objects if (o.shape, o.colour) in HELD_OUT]
