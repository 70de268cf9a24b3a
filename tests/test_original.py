"""DeepSeek's layout, in each of the forms its weights come in; and what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from conftest import build
from janus_r1.cli import main
from janus_r1.errors import UserError
from janus_r1.model import loading, streaming
from janus_r1.model.loading import load
from originals import UNUSED, logits, to_original, write_original

FORMS = {
    "bin": {},
    "bin sharded": {"shards": 3},
    "bin sharded without index": {"shards": 3, "index": False},
    "safetensors": {"form": "safetensors"},
    "safetensors sharded": {"form": "safetensors", "shards": 3},
}


@pytest.fixture(params=[*FORMS, "state dict", "state dict over transformers"])
def form(request, tiny, tiny_folder, tmp_path) -> dict:
    """Arguments of ``load`` for the same model in one of the forms."""
    if request.param in FORMS:
        return {"name": str(write_original(tiny, tmp_path / "original", **FORMS[request.param]))}
    torch.save(to_original(tiny.core.state_dict()) | UNUSED, tmp_path / "sft.pth")
    over = tiny_folder if "over" in request.param else write_original(build(tiny.tokenizer, 1), tmp_path / "base")
    return {"name": str(over), "weights": tmp_path / "sft.pth"}


@pytest.fixture
def original(tiny, tmp_path) -> Path:
    """One ``.bin``, to damage."""
    return write_original(tiny, tmp_path / "damaged")


# ------------------------------------------------------------------------------------------ equality


def test_every_form_holds_the_same_model(form, tiny, tiny_folder):
    loaded, reference = load(**form), load(str(tiny_folder))
    state, expected = loaded.core.state_dict(), reference.core.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    for ours, theirs in zip(logits(loaded), logits(reference), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert not torch.equal(state["lm_head.weight"], state["model.language_model.embed_tokens.weight"])
    assert loaded.layout.special == reference.layout.special
    prompt = "a red circle"
    assert loaded.layout.prompt(prompt) == reference.layout.prompt(prompt)


@pytest.mark.parametrize("form", FORMS, indirect=True)
def test_every_form_draws_from_the_command_line(form, tmp_path, capsys):
    common = ["--samples", "1", "--rounds", "1", "--out", str(tmp_path / "out"), "--json"]
    assert main(["generate", "a ring", "--model", form["name"], *common]) == 0
    assert json.loads(capsys.readouterr().out)


def test_bfloat16_and_auto(tiny, tmp_path):
    half = write_original(tiny, tmp_path / "half")
    state = {name: value.bfloat16() for name, value in torch.load(half / "pytorch_model.bin").items()}
    torch.save(state, half / "pytorch_model.bin")
    loaded = load(str(half), "auto")
    assert loaded.dtype == torch.bfloat16
    assert {p.dtype for p in loaded.core.model.vqmodel.parameters()} == {torch.float32}


def test_files_may_change_after_loading(tiny, original):
    loaded = load(str(original))
    before = [value.clone() for value in loaded.core.state_dict().values()]
    (original / "pytorch_model.bin").write_bytes(b"\0" * (original / "pytorch_model.bin").stat().st_size)
    assert all(torch.equal(a, b) for a, b in zip(before, loaded.core.state_dict().values(), strict=True))


def test_windows_do_not_change_what_is_read(tiny, tmp_path, monkeypatch):
    folder = write_original(tiny, tmp_path / "original", form="safetensors")
    monkeypatch.setattr(streaming, "WINDOW", 1000)
    assert torch.equal(load(str(folder)).core.lm_head.weight, tiny.core.lm_head.weight)


def test_torchs_old_file_format(tiny, original):
    path = original / "pytorch_model.bin"
    torch.save(torch.load(path), path, _use_new_zipfile_serialization=False)
    assert torch.equal(load(str(original)).core.lm_head.weight, tiny.core.lm_head.weight)


def test_a_hub_id_is_resolved_to_a_folder(tiny, original, monkeypatch):
    asked = []

    def download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(original)

    monkeypatch.setattr(loading, "snapshot_download", download)
    assert torch.equal(load("owner/model").core.lm_head.weight, tiny.core.lm_head.weight)
    assert [name for name, _ in asked] == ["owner/model"] * 2  # no safetensors there: .bin was asked for then
    assert not any("py" in pattern for _, patterns in asked for pattern in patterns)


def test_an_unreachable_hub_is_one_line(monkeypatch):
    def download(name, allow_patterns):
        raise OSError("no route\nto host")

    monkeypatch.setattr(loading, "snapshot_download", download)
    with pytest.raises(UserError, match=r"from the Hub: no route$"):
        load("owner/model")


# ------------------------------------------------------------------------------------------- refusal


def test_all_that_does_not_fit_is_in_one_error(original):
    path = original / "pytorch_model.bin"
    state = torch.load(path)
    for name in [name for name in state if "layers.0.mlp" in name]:
        state.pop(name)
    state |= {"stray": torch.zeros(1), "gen_embed.weight": torch.zeros(3, 8)}
    torch.save(state, path)
    with pytest.raises(UserError) as caught:
        load(str(original))
    said = str(caught.value)
    assert "3 missing (language_model.model.layers.0.mlp." in said
    assert "1 unexpected (stray)" in said
    assert "1 misshapen (gen_embed.weight is 3x8, not 96x8)" in said


def test_a_missing_shard_is_named(tiny, tmp_path):
    folder = write_original(tiny, tmp_path / "original", shards=3)
    (folder / "pytorch_model-00002-of-00003.bin").unlink()
    with pytest.raises(UserError, match="1 of its 3 shards"):
        load(str(folder))


class Code:
    """Unpickling it writes a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return Path.write_text, (self.proof, "ran")


@pytest.mark.parametrize("how", ["torch", "torch old", "pickle"])
def test_code_in_a_bin_never_runs(how, original, tmp_path, capsys):
    proof, path = tmp_path / "proof", original / "pytorch_model.bin"
    value = {"lm_head.weight": torch.zeros(2), "code": Code(proof)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(value))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=how == "torch")
    assert main(["generate", "a ring", "--model", str(original), "--out", str(tmp_path / "out")]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1 and "refused to load" in lines[0]
    assert not proof.exists()


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_bin_is_one_line(kept, original, tmp_path, capsys):
    path = original / "pytorch_model.bin"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert main(["generate", "a ring", "--model", str(original), "--out", str(tmp_path / "out")]) == 2
    assert str(path) in capsys.readouterr().err.splitlines()[-1]
