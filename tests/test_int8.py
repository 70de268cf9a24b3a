"""Matrices in 8 bits: what is rounded, what is not, and what a rounded model refuses."""

from __future__ import annotations

import json

import pytest
import torch

from janus_r1.chain import Settings, Task
from janus_r1.cli import main
from janus_r1.errors import UserError
from janus_r1.introspect import introspect
from janus_r1.model import matrices as module
from janus_r1.model.loading import load, save
from janus_r1.model.matrices import Int8Linear, coded, product, quantize
from janus_r1.segments import Drawn, row_length

PROMPTS = ["a red circle", "a small blue square left of a large pink heart", "two rings"]


@pytest.fixture
def matrices():
    torch.manual_seed(0)
    return torch.randn(96, 64), torch.randn(32, 64) * 5


def test_rows_are_coded_by_their_own_largest_number():
    scales, codes = coded(torch.tensor([[254.0, -127.0, 3.0], [0.5, 0.25, 0.0], [0.0, 0.0, 0.0]]))
    assert codes.tolist() == [[127, -64, 2], [127, 64, 0], [0, 0, 0]]
    assert scales[:2].tolist() == pytest.approx([2.0, 0.5 / 127])


def test_product_is_the_matrix_product_but_for_rounding(matrices):
    x = torch.randn(3, 5, 64) * torch.tensor([0.01, 1.0, 30.0])[:, None, None]
    exact = torch.cat([x @ weight.T for weight in matrices], -1)
    found = product(x, [Int8Linear(weight) for weight in matrices])
    assert found.shape == (3, 5, 128)
    error = (found - exact).norm(dim=-1) / exact.norm(dim=-1)
    assert error.max() < 0.02  # of small and of large rows alike


def test_a_row_is_the_same_in_any_batch(matrices):
    weight, x = Int8Linear(matrices[0]), torch.randn(40, 64)
    x[0] *= 1000
    together = weight(x)
    assert all(torch.equal(together[i : i + 1], weight(x[i : i + 1])) for i in range(40))


@pytest.mark.skipif(not module.UNSIGNED, reason="this processor needs no unsigned numbers")
def test_unsigned_numbers_give_the_same_bits(matrices, monkeypatch):
    weight, x = Int8Linear(matrices[0]), torch.randn(7, 64)
    x[1], x[2] = 3.0, -3.0  # the largest codes of both signs throughout
    unsigned = weight(x)
    monkeypatch.setattr(module, "UNSIGNED", False)
    assert torch.equal(weight(x), unsigned)


def test_decoder_agrees_with_the_whole_sequence_at_once(tiny):
    model = tiny
    quantize(model.language)
    for chain in introspect(model, [Task(p) for p in PROMPTS], Settings(rounds=1, guidance=1.0, max_reason_tokens=5)):
        draft = chain.rounds[0]
        row = (model.layout.prompt(chain.prompt), Drawn(draft.ids))
        start = row_length(row) - model.image_tokens
        with torch.no_grad():
            logits = model.image_logits(model.hidden(model.embed_rows([row]))[0, start - 1 : -1])
        expected = logits.float().log_softmax(-1).gather(1, torch.tensor(draft.ids)[:, None])[:, 0]
        assert (torch.tensor(draft.logprobs) - expected).abs().max() < 0.01  # other sums before rounding


def test_trained_model_draws_nearly_the_same():
    whole, rounded = load("tiny-sft"), load("tiny-sft", "int8")
    draft = introspect(whole, [Task(PROMPTS[1])], Settings(rounds=1))[0].rounds[0]
    row = (whole.layout.prompt(PROMPTS[1]), Drawn(draft.ids))
    with torch.no_grad():
        hidden = [model.hidden(model.embed_rows([row]))[0, -1 - len(draft.ids) : -1] for model in (whole, rounded)]
        expected, found = (whole.image_logits(states.float()).log_softmax(-1) for states in hidden)
    divergence = (expected.exp() * (expected - found)).sum(-1)
    assert 0 < divergence.mean() < 0.005  # rounded, but not much


def test_rounded_model_is_not_saved(tiny, tmp_path):
    quantize(tiny.language)
    with pytest.raises(UserError, match="only generates"):
        save(tiny, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_int8_is_for_a_cpu(tiny):
    with pytest.raises(UserError, match="pass --dtype bfloat16"):
        quantize(tiny.to("meta").language)


def test_command_draws_in_int8(tiny_folder, tmp_path, capsys):
    out = tmp_path / "chains"
    options = ["--dtype", "int8", "--rounds", "1", "--out", str(out), "--json"]
    assert main(["generate", PROMPTS[0], "--model", str(tiny_folder), *options]) == 0
    assert json.loads(capsys.readouterr().out)
    assert (out / "sheet.png").exists()
