"""Loading: dtypes, and folders that are not what they should be."""

from __future__ import annotations

import contextlib
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from janus_r1.chain import Settings, Task, load_chain
from janus_r1.errors import UserError
from janus_r1.introspect import introspect
from janus_r1.model.janus import from_uint8
from janus_r1.model.loading import load


def test_bfloat16_draws_and_judges_but_encodes_in_float32(tiny_folder):
    half, full = load(str(tiny_folder), "bfloat16"), load(str(tiny_folder))
    assert half.dtype == torch.bfloat16
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    ids = [model.encode_image(from_uint8(images)) for model in (half, full)]
    assert (ids[0] == ids[1]).float().mean() > 0.9, "only the rounding of the weights may tell them apart"
    chain = introspect(half, [Task("a ring")], Settings(rounds=2, early_stop=False, max_reason_tokens=5))[0]
    assert len(chain.rounds) == 2 and all(np.isfinite(r.logprobs).all() for r in chain.rounds)


@pytest.fixture
def broken(tiny_folder, tmp_path):
    """A copy to damage."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


def test_missing_weights_are_named(broken):
    from safetensors.torch import load_file, save_file

    state = load_file(broken / "model.safetensors")
    state.pop("lm_head.weight")
    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lm_head"):
        load(str(broken))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_with_their_name(broken, value):
    """Such a model would draw, and say No to everything with a p_yes that JSON does not know."""
    path = broken / "model.safetensors"
    weights = load_file(path)
    weights["lm_head.weight"][3, 5] = value
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(UserError, match=r"lm_head\.weight holds numbers that are not finite"):
        load(str(broken))


def test_a_verdict_that_is_no_number_is_refused(tiny):
    with torch.no_grad():
        tiny.core.lm_head.weight.fill_(float("nan"))
    with pytest.raises(UserError, match=r"P\(Yes\) is not a number"):
        introspect(tiny, [Task("a red circle")], Settings(rounds=1))


def test_truncated_weights_are_one_clear_line(broken):
    path = broken / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot load the model"):
        load(str(broken))


def test_another_kind_of_model_is_refused(broken):
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    with pytest.raises(UserError, match="not hold a Janus"):
        load(str(broken))


@pytest.mark.parametrize("name", ["tiny-nothing", "./nowhere", "a/b/c"])
def test_unknown_names_say_what_would_do(name):
    with pytest.raises(UserError, match="Hub id"):
        load(name)


def test_a_chain_survives_its_folder(tiny, tmp_path):
    chain = introspect(tiny, [Task("a ring")], Settings(rounds=2, seed=3))[0]
    chain.save(tmp_path / "chain")
    again = load_chain(tmp_path / "chain")
    assert again.as_dict() == json.loads(json.dumps(chain.as_dict())) | {"rounds": again.as_dict()["rounds"]}
    assert [r.verdict for r in again.rounds] == [r.verdict for r in chain.rounds]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(again.rounds, chain.rounds, strict=True))
    (tmp_path / "chain" / "round_1.png").unlink()
    with pytest.raises(UserError, match="no such file"):
        load_chain(tmp_path / "chain")


def test_code_that_a_folder_brings_is_neither_run_nor_offered(broken, monkeypatch):
    """transformers would ask whether to run it, and run it on "y"."""
    (broken / "evil.py").write_text(f"open({str(broken / 'ran')!r}, 'w')\nclass Evil: pass\n")
    path = broken / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(
        json.dumps(config | {"auto_map": {"AutoTokenizer": [None, "evil.Evil"]}, "tokenizer_class": "Evil"})
    )

    def asked(*prompt):
        raise AssertionError(f"a question was asked: {prompt}")

    monkeypatch.setattr("builtins.input", asked)
    with contextlib.suppress(UserError):
        load(str(broken))
    assert not (broken / "ran").exists()


def test_loading_and_running_set_no_switch_of_torchs(tiny_folder, monkeypatch):
    """Convolutions are float32 throughout while ours run, and what they were afterwards."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    janus, seen = load(str(tiny_folder)), []
    convolution = janus.core.model.vqmodel.quant_conv
    convolution.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    janus.encode_image(torch.zeros(1, 3, 64, 64))
    assert seen == [False] and torch.backends.cudnn.allow_tf32
