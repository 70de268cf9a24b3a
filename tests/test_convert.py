"""``janus-r1 convert``: what it writes, transformers reads."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import JanusForConditionalGeneration
from transformers.models.janus.processing_janus import JanusProcessor

from conftest import build
from janus_r1.cli import main
from janus_r1.model.janus import Janus
from janus_r1.model.loading import load
from originals import logits, to_original, write_original


@pytest.fixture
def original(tiny, tmp_path):
    return write_original(tiny, tmp_path / "original")


def test_convert_writes_what_transformers_reads(tiny, original, tmp_path, capsys):
    out = tmp_path / "converted"
    assert main(["convert", str(original), str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dtype"] == "float32"
    core, info = JanusForConditionalGeneration.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    expected = tiny.core.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in core.state_dict().items())
    core.eval()
    for model in (load(str(out)), Janus(core, tiny.tokenizer)):
        for ours, theirs in zip(logits(model), logits(tiny), strict=True):
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
    inputs = processor(text=prompt, generation_mode="image", return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == list(tiny.layout.prompt("a ring").ids)
    chat = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    assert chat["input_ids"][0].tolist() == list(tiny.layout.prompt("a ring").ids)[:-1]
    core = JanusForConditionalGeneration.from_pretrained(out)
    ids = core.generate(**inputs, generation_mode="image", do_sample=False, guidance_scale=5)
    assert ids.shape == (1, 64)
    pixels = torch.full((3, 32, 64), 255, dtype=torch.uint8)
    seen = processor(text="<image_placeholder>?", images=[pixels.numpy()], return_tensors="pt")
    assert seen["pixel_values"].shape == (1, 3, 64, 64) and seen["pixel_values"].max() == 1
    assert (seen["input_ids"] == core.config.image_token_id).sum() == 64
