"""A diffusers pipeline as a drawer, on a tiny random one; and one that fails."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import pie_bench
from janus_r1.cli import main
from janus_r1.data.drawers import DiffusersDrawer, Order
from janus_r1.data.store import Store
from janus_r1.errors import UserError
from janus_r1.rewards.score import Abstained

STEPS = {"num_inference_steps": 2, "output_type": "pil"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    diffusers = pytest.importorskip("diffusers")
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    place = tmp_path_factory.mktemp("pipeline")
    pie_bench.save_clip(place / "clip")
    tokenizer = CLIPTokenizer.from_pretrained(place / "clip", model_max_length=20)
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = CLIPTextConfig(vocab_size=len(tokenizer), max_position_embeddings=20, eos_token_id=1, bos_token_id=0, **size)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=16,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, layers_per_block=1)
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=diffusers.DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(place / "sd")
    return place / "sd"


def drawn(drawer, orders):
    return [np.asarray(Image.open(io.BytesIO(data))) for _, data in drawer.draw(orders)]


def test_images_belong_to_their_prompts_number_and_copy(folder):
    orders = [Order("a red circle", 0, 0), Order("a red circle", 0, 1), Order("a blue star", 1, 0)]
    alone, together = (DiffusersDrawer.load(str(folder), "sd", STEPS, "float32", "cpu", batch) for batch in (1, 3))
    images = drawn(alone, orders)
    assert images[0].shape == (8, 8, 3) and not np.array_equal(images[0], images[1])
    for one, other in zip(images, drawn(together, orders), strict=True):
        assert np.abs(one.astype(int) - other).max() <= 2, "they do not depend on their batch"
    assert np.array_equal(images[1], drawn(alone, orders[1:2])[0])


def test_mistakes_are_one_line_and_failures_abstain(folder, tmp_path):
    with pytest.raises(UserError, match="the pipeline sd takes no steps: see options"):
        DiffusersDrawer.load(str(folder), "sd", {"steps": 2}, "float32", "cpu")
    wrong = DiffusersDrawer.load(str(folder), "sd", {**STEPS, "guidance_scale": "much"}, "float32", "cpu")
    with pytest.raises(UserError, match=r"the pipeline sd: .*see options"):
        list(wrong.draw([Order("a ring", 0, 0)]))
    with pytest.raises(UserError, match="cannot load the pipeline"):
        DiffusersDrawer.load(str(tmp_path), "sd", {}, "float32", "cpu")
    with pytest.raises(UserError, match="unknown dtype 'fp8x'"):
        DiffusersDrawer.load(str(folder), "sd", {}, "fp8x", "cpu")

    def broken(prompt, generator):
        raise RuntimeError("out of memory: tried to allocate 3 GiB")

    (_, answer), _ = DiffusersDrawer(broken, "sd", {}).draw([Order("a ring", 0, 0), Order("a star", 1, 0)])
    assert isinstance(answer, Abstained) and answer.cause == "the pipeline failed"

    def flagged(prompt, generator):
        return SimpleNamespace(images=[Image.new("RGB", (8, 8))] * 2, nsfw_content_detected=[True, False])

    (_, hidden), (_, kept) = DiffusersDrawer(flagged, "sd", {}).draw([Order("a ring", 0, 0), Order("a star", 1, 0)])
    assert isinstance(hidden, Abstained) and "safety checker" in hidden.why and isinstance(kept, bytes)


def test_it_makes_data(folder, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("a red circle\na blue star\n")
    drawer = {
        "kind": "diffusers",
        "model": str(folder),
        "options": STEPS,
        "images": 2,
        "dtype": "float32",
        "name": "sd",
    }
    recipe = {"prompts": str(tmp_path / "prompts.txt"), "out": str(tmp_path / "made"), "drawers": [drawer]}
    (tmp_path / "make.yaml").write_text(json.dumps(recipe))
    assert main(["data", "make", "--config", str(tmp_path / "make.yaml")]) == 0
    store = Store(tmp_path / "made")
    assert len(store) == 4 and {store[row].source for row in range(4)} == {"sd"}
    assert [store[row].prompt for row in range(4)] == ["a red circle"] * 2 + ["a blue star"] * 2
