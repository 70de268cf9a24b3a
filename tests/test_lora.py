"""LoRA: what draws equals what learns, only adapters move, and the base stays the reference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from janus_r1.engine.decoder import Decoder
from janus_r1.errors import UserError
from janus_r1.model.loading import load
from janus_r1.train.checkpoint import newest_checkpoint
from janus_r1.train.loop import RunOptions
from janus_r1.train.lora import Adapters, LoraRecipe
from janus_r1.train.policy import Policy, rows_of
from janus_r1.train.prepare import Replica, prepare
from janus_r1.train.rl import Parts, rl
from test_rl import chains_of, small

HEADS = ("lm_head", "generation_head", "generation_aligner", "model.aligner")


def adapted(folder: Path, scale: float, **changes):
    """A policy whose trained parts differ from its base by random numbers of ``scale``."""
    janus = load(str(folder))
    prepare(janus, train_vision=False, compile_model=False)
    adapters = Adapters(janus, LoraRecipe(rank=3, alpha=6, **changes), "base", seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in janus.parameters():
            if parameter.requires_grad:
                parameter += scale * torch.randn_like(parameter)
    return janus, adapters


@pytest.mark.parametrize("heads", [False, True])
def test_the_generator_draws_from_the_adapted_policy(tiny_folder, heads):
    janus, adapters = adapted(tiny_folder, 0.1, heads=heads)
    chains = chains_of(Replica(janus, str(tiny_folder), adapters=adapters).refresh())
    policy, rows = Policy(janus, chains[0].settings), rows_of(janus.layout, chains)
    image, text = policy(rows)
    said = torch.tensor([p for c in chains for r in c.rounds for p in r.verdict.logprobs])
    assert torch.allclose(image, torch.tensor([p for c in chains for r in c.rounds for p in r.logprobs]), atol=1e-4)
    assert torch.allclose(text, said, atol=1e-4)
    with adapters.off():
        assert not torch.allclose(policy(rows)[0], image, atol=1e-2)


def test_the_base_is_the_reference_exactly_even_where_heads_are_trained(tiny_folder):
    janus, adapters = adapted(tiny_folder, 0.1, heads=True)
    base = load(str(tiny_folder))
    base.core.set_attn_implementation("eager")
    chains = chains_of(base)
    rows = rows_of(base.layout, chains)
    with adapters.off(), torch.no_grad():
        off = Policy(janus, chains[0].settings)(rows)
    expected = Policy(base, chains[0].settings)(rows)
    assert all(torch.equal(one, other) for one, other in zip(off, expected, strict=True))
    assert all(p.requires_grad for name, p in janus.named_parameters() if "lora_" in name)


@pytest.mark.parametrize("heads", [False, True])
def test_gradients_reach_adapters_and_what_is_flagged(tiny_folder, heads):
    janus, _ = adapted(tiny_folder, 0.1, heads=heads)
    chains = chains_of(load(str(tiny_folder)))
    image, text = Policy(janus, chains[0].settings)(rows_of(janus.layout, chains))
    (image.sum() + text.sum()).backward()
    reached = {name for name, p in janus.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    matrices = [name for name in reached if "lora_" in name]
    assert len(matrices) == 2 * 7 * len(janus.core.model.language_model.layers)
    assert all("language_model.layers" in name for name in matrices)
    for head in HEADS:
        assert any(f"core.{head}" in name or f"model.{head}" in name for name in reached - {*matrices}) == heads
    assert not [name for name in reached if "vision_model" in name or "original_module" in name]


def test_the_decoder_does_not_overlook_adapters(tiny_folder):
    janus, _ = adapted(tiny_folder, 0.1)
    with pytest.raises(ValueError, match="merged"):
        Decoder(janus)


def test_a_bfloat16_base_keeps_what_is_trained_in_float32(tiny_folder):
    janus = load(str(tiny_folder), "bfloat16")
    Adapters(janus, LoraRecipe(rank=2, heads=True), "base", seed=0)
    assert {p.dtype for p in janus.parameters() if p.requires_grad} == {torch.float32}
    assert janus.core.model.language_model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16


def recipe(folder: Path, out: Path, steps: int):
    run = RunOptions(out=str(out), steps=steps, save_every=1, threads=1, precision="no", warmup=1, cooldown=0.0)
    return small(folder, out, run=run, lora=LoraRecipe(rank=2, heads=True), kl=0.1, lr=1e-2)


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory) -> Path:
    """Two steps, and the same with a break between them."""
    root = tmp_path_factory.mktemp("lora")
    rl(recipe(tiny_folder, root / "whole", 2))
    rl(recipe(tiny_folder, root / "broken", 1))
    rl(recipe(tiny_folder, root / "broken", 2), resume=True)
    return root


def test_a_resumed_run_equals_an_uninterrupted_one_and_keeps_only_what_is_trained(trained):
    one, other = (load_file(newest_checkpoint(trained / run) / "model.safetensors") for run in ("whole", "broken"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert all("lora_" in name or "modules_to_save" in name for name in one)
    assert any(value.abs().sum() > 0 for name, value in one.items() if "lora_B" in name), "nothing was learnt"


def test_the_model_is_merged_and_the_adapter_is_pefts(trained, tiny_folder):
    merged, base = load(str(trained / "whole" / "model")), load(str(tiny_folder))
    before = base.core.lm_head.weight.clone()
    PeftModel.from_pretrained(base.core, str(trained / "whole" / "adapter"))
    chains = chains_of(load(str(tiny_folder)))
    rows = rows_of(base.layout, chains)
    with torch.no_grad():
        ours, pefts = (Policy(model, chains[0].settings)(rows)[0] for model in (merged, base))
    assert (ours - pefts).abs().mean() < 0.05  # the merged model is saved in bfloat16
    assert not torch.equal(before, base.core.lm_head.weight)


def test_recipes_that_name_no_matrix_are_refused(tiny_folder, tmp_path):
    wrong = LoraRecipe(rank=2, targets=["q_proj", "query"])
    with pytest.raises(UserError, match=r"no matrix 'query'.*q_proj"):
        Parts(small(tiny_folder, tmp_path, lora=wrong))
