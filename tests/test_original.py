"""DeepSeek's layout, in each of the forms its weights come in."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import JanusForConditionalGeneration
from transformers.models.janus.processing_janus import JanusProcessor

from conftest import build
from janus_r1.cli import main
from janus_r1.errors import UserError
from janus_r1.model import hub, streaming
from janus_r1.model.loading import load
from janus_r1.model.original import original_name, to_original
from janus_r1.model.original_config import from_original, to_original_config
from janus_r1.model.tokenizer import PAD

JANUS_PRO_7B = {  # as published, without housekeeping
    "model_type": "multi_modality",
    "vision_config": {
        "cls": "CLIPVisionTower",
        "model_type": "vision",
        "params": {
            "image_size": 384,
            "model_name": "siglip_large_patch16_384",
            "select_feature": "same",
            "select_layer": -1,
        },
    },
    "aligner_config": {
        "cls": "MlpProjector",
        "model_type": "aligner",
        "params": {"depth": 2, "input_dim": 1024, "n_embed": 4096, "projector_type": "mlp_gelu"},
    },
    "gen_vision_config": {
        "cls": "VQ-16",
        "model_type": "gen_vision",
        "params": {"image_token_size": 16384, "n_embed": 8},
    },
    "gen_aligner_config": {
        "cls": "MlpProjector",
        "model_type": "gen_aligner",
        "params": {"depth": 2, "input_dim": 8, "n_embed": 4096, "projector_type": "mlp_gelu"},
    },
    "gen_head_config": {
        "cls": "vision_head",
        "model_type": "gen_head",
        "params": {"image_token_embed": 4096, "image_token_size": 16384, "n_embed": 4096},
    },
    "language_config": {
        "max_position_embeddings": 16384,
        "model_type": "llama",
        "num_hidden_layers": 30,
        "torch_dtype": "bfloat16",
        "vocab_size": 102400,
    },
}
UNUSED = {
    "vision_model.vision_tower.attn_pool.latent": torch.zeros(1, 1, 32),
    "gen_vision_model.quantize.codebook_used": torch.zeros(65536),
}


def write_tokenizer(janus, folder: Path) -> None:
    """As Janus-Pro's files are: Llama's class in the config, a null pad token, the pad in the map only."""
    janus.tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True, "pad_token": None, "legacy": True}
    path.write_text(json.dumps(config), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": PAD}), encoding="utf-8")


def write_original(janus, folder: Path, form: str = "bin", shards: int = 1, index: bool = True) -> Path:
    """A model folder in DeepSeek's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(to_original_config(janus.core.config)))
    write_tokenizer(janus, folder)
    state = to_original(janus.core.state_dict()) | UNUSED
    stem, suffix = {"bin": ("pytorch_model", "bin"), "safetensors": ("model", "safetensors")}[form]
    names, weight_map = sorted(state), {}
    for i in range(shards):
        file = f"{stem}.{suffix}" if shards == 1 else f"{stem}-{i + 1:05}-of-{shards:05}.{suffix}"
        shard = {name: state[name].contiguous() for name in names[i::shards]}
        save_file(shard, folder / file) if form == "safetensors" else torch.save(shard, folder / file)
        weight_map |= dict.fromkeys(shard, file)
    if shards > 1 and index:
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


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


@torch.no_grad()
def logits(janus) -> list[torch.Tensor]:
    """Of the three streams: text, drawn and seen images; and decoded pixels."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1
    ids = torch.randint(0, 96, (2, 64), generator=generator)
    text = janus.embed_text(torch.randint(0, 400, (2, 9), generator=generator))
    drawn = janus.hidden(torch.cat([text, janus.embed_drawn(ids)], 1))
    seen = janus.hidden(torch.cat([text, janus.embed_seen(pixels)], 1))
    decoded = torch.from_numpy(janus.decode_image(ids)).float()
    return [janus.text_logits(janus.hidden(text)), janus.image_logits(drawn), janus.text_logits(seen), decoded]


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

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert torch.equal(load("owner/model").core.lm_head.weight, tiny.core.lm_head.weight)
    assert [name for name, _ in asked] == ["owner/model"] * 2  # no safetensors there: .bin was asked for then
    assert not any("py" in pattern for _, patterns in asked for pattern in patterns)


def test_an_unreachable_hub_is_one_line(monkeypatch):
    def download(name, allow_patterns):
        raise OSError("no route\nto host")

    monkeypatch.setattr(hub, "snapshot_download", download)
    with pytest.raises(UserError, match=r"from the Hub: no route$"):
        load("owner/model")


# -------------------------------------------------------------------------------------------- config


def test_the_published_7b_config():
    config = from_original(JANUS_PRO_7B)
    text, vision, vq = config.text_config, config.vision_config, config.vq_config
    assert (text.hidden_size, text.intermediate_size, text.num_attention_heads) == (4096, 11008, 32)
    assert (text.num_hidden_layers, text.num_key_value_heads, text.vocab_size) == (30, 32, 102400)
    assert (text.rms_norm_eps, text.rope_parameters["rope_theta"]) == (1e-6, 10000)
    assert (vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads) == (1024, 24, 16)
    assert (vision.num_image_tokens, vision.projection_dim, vq.num_patches) == (576, 4096, 24)
    assert not config.tie_word_embeddings and not text.tie_word_embeddings
    assert from_original(to_original_config(config)).to_dict() == config.to_dict()


def test_the_published_7b_has_the_published_names_and_parameters():
    """7,420,368,523 in all, of which the tensors that are dropped; counted on empty weights."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        core = JanusForConditionalGeneration(from_original(JANUS_PRO_7B))
    names = {original_name(name) for name, _ in core.named_parameters()}
    assert "vision_model.vision_tower.blocks.23.attn.qkv.weight" in names
    assert "gen_vision_model.encoder.conv_blocks.4.attn.1.proj_out.weight" in names
    assert "gen_vision_model.decoder.conv_blocks.3.upsample.conv.bias" in names
    pooling = 1024 + 3 * 1024 * 1024 + 3 * 1024 + 1024 * 1024 + 1024 + 2 * 1024 + 2 * 4096 * 1024 + 4096 + 1024
    assert sum(p.numel() for p in core.parameters()) + pooling == 7_420_368_523


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        ("vision_config", {"model_name": "siglip_giant"}, "unknown vision tower 'siglip_giant'"),
        ("vision_config", {"widht": 3}, "unknown names widht"),
        ("gen_head_config", {"n_embed": 7}, "gen_head_config.params.n_embed is 7"),
        ("gen_vision_config", {"ch_mult": [1, 1]}, "contradicts itself"),
    ],
)
def test_an_odd_config_is_one_clear_error(part, change, said):
    config = json.loads(json.dumps(JANUS_PRO_7B))
    config[part]["params"] |= change
    with pytest.raises(UserError, match=said):
        from_original(config)


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


# ------------------------------------------------------------------------------------------- convert


def test_convert_writes_what_transformers_reads(tiny, original, tmp_path, capsys):
    out = tmp_path / "converted"
    assert main(["convert", str(original), str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dtype"] == "float32"
    core, info = JanusForConditionalGeneration.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    expected = tiny.core.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in core.state_dict().items())
    for ours, theirs in zip(logits(load(str(out))), logits(tiny), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert (out / "README.md").exists() and (out / "generation_config.json").exists()
    assert main(["convert", str(original), str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["convert", str(original), str(out), "--overwrite", "--dtype", "bfloat16"]) == 0
    assert load(str(out), "auto").dtype == torch.bfloat16


def test_convert_takes_a_state_dict(tiny, tmp_path):
    base = write_original(build(tiny.tokenizer, 1), tmp_path / "base")
    torch.save(to_original(tiny.core.state_dict()), tmp_path / "sft.pth")
    out = tmp_path / "converted"
    assert main(["convert", str(base), str(out), "--weights", str(tmp_path / "sft.pth")]) == 0
    assert torch.equal(load(str(out)).core.lm_head.weight, tiny.core.lm_head.weight)
    assert main(["convert", str(base), str(tmp_path / "no"), "--weights", str(tmp_path / "none.pth")]) == 2
    assert not (tmp_path / "no").exists()


def test_transformers_own_processor_and_generate_work_on_it(tiny, original, tmp_path):
    out = tmp_path / "converted"
    assert main(["convert", str(original), str(out)]) == 0
    processor = JanusProcessor.from_pretrained(out)
    messages = [{"role": "user", "content": [{"type": "text", "text": "a ring"}]}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = processor(text=prompt, generation_mode="image", return_tensors="pt", add_special_tokens=False)
    assert inputs["input_ids"][0].tolist() == list(tiny.layout.prompt("a ring").ids)
    core = JanusForConditionalGeneration.from_pretrained(out)
    ids = core.generate(**inputs, generation_mode="image", do_sample=False, guidance_scale=5)
    assert ids.shape == (1, 64)
    pixels = torch.full((3, 32, 64), 255, dtype=torch.uint8)
    seen = processor(text="<image_placeholder>?", images=[pixels.numpy()], return_tensors="pt")
    assert seen["pixel_values"].shape == (1, 3, 64, 64) and seen["pixel_values"].max() == 1
    assert (seen["input_ids"] == core.config.image_token_id).sum() == 64


# -------------------------------------------------------------------------------------------- memory


MEASURE = """
import sys, threading, time
from pathlib import Path
from janus_r1.model.loading import load

def resident():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1]) * 1024

load(sys.argv[2])  # what a first load imports and caches is no part of the answer
baseline, peak, running = resident(), 0, True
def watch():
    global peak
    while running:
        peak = max(peak, resident())
        time.sleep(0.001)
thread = threading.Thread(target=watch)
thread.start()
model = load(sys.argv[1])
running = False
thread.join()
print((peak - baseline) / sum(p.nbytes for p in model.core.parameters()))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own count")
@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_loading_needs_little_more_memory_than_the_weights(kind, words, tiny, tmp_path):
    from janus_r1.model.janus import Janus
    from janus_r1.model.presets import random_model, tiny_config

    config = tiny_config(len(words), num_embeddings=96, hidden=768, layers=7, intermediate=2048)
    big = Janus(random_model(config, 0), words)
    folder = write_original(big, tmp_path / "big", kind, shards=10)
    small = write_original(tiny, tmp_path / "small")
    command = [sys.executable, "-c", MEASURE, str(folder), str(small)]
    factor = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"{kind}: peak is {factor:.3f} x the weights")
    assert factor <= 1.15
