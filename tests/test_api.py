"""Python at home: what people hold goes in, PIL images come out, and mistakes are told in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from janus_r1.api import ELSEWHERE, JanusR1
from janus_r1.errors import UserError
from janus_r1.images import to_pixels

QUICK = {"rounds": 1, "max_reason_tokens": 2}


@pytest.fixture
def model(tiny) -> JanusR1:
    return JanusR1(tiny)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8)


def test_every_kind_of_image_is_judged_alike(model, pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    kinds = [pixels, Image.fromarray(pixels), tmp_path / "a.png", str(tmp_path / "a.png")]
    verdicts = [model.judge(one, "a red circle", **QUICK)[0] for one in kinds]
    assert len({verdict.p_yes for verdict in verdicts}) == 1
    assert len(model.judge(np.stack([pixels] * 2), "a red circle", **QUICK)) == 2
    assert len(model.judge(kinds, ["a red circle"] * 4, **QUICK)) == 4


def test_a_pil_image_in_another_mode_is_read_as_a_file_would_be(pixels, tmp_path):
    clear = Image.fromarray(pixels).convert("RGBA")
    clear.putalpha(0)
    assert (to_pixels(clear) == 255).all()  # transparency lies over white
    assert (to_pixels(Image.new("L", (8, 8), 7)) == 7).all()


@pytest.mark.parametrize(
    "wrong", [np.zeros((8, 8, 3), np.float32), torch.zeros(3, 8, 8), 7, np.zeros((8, 8, 4), np.uint8)]
)
def test_what_is_no_image_is_one_line(model, wrong):
    for call in (lambda: model.judge([wrong], "a red circle"), lambda: model.edit([wrong], "add a ring")):
        with pytest.raises(UserError, match=r"uint8 arrays|images are uint8"):
            call()


def test_pil_images_come_out(model, pixels):
    chain = model.edit(Image.fromarray(pixels), "add a red ring", **QUICK)[0]
    assert isinstance(chain.image, Image.Image) and isinstance(chain.rounds[0].image, Image.Image)
    assert (np.asarray(chain.image) == chain.pixels).all() and chain.image.size == (model.image_size,) * 2


def test_a_row_does_not_depend_on_its_place(model):
    prompts = ["a red circle", "a blue square", "a green ring"]
    together = model.generate(prompts, seed=5, **QUICK)
    alone = model.generate(prompts[2], seed=5, first_row=2, **QUICK)[0]
    assert alone.rounds[0].ids == together[2].rounds[0].ids and alone.row == 2
    seeded = model.generate(prompts, seed=[3, 4, 5], **QUICK)
    for prompt, seed, chain in zip(prompts, (3, 4, 5), seeded, strict=True):
        assert chain.rounds[0].ids == model.generate(prompt, seed=seed, **QUICK)[0].rounds[0].ids
        assert chain.settings.seed == seed


def test_a_fresh_seed_is_told(model):
    one, two = (model.generate("a red circle", seed=None, **QUICK)[0] for _ in range(2))
    assert one.settings.seed != two.settings.seed
    again = model.generate("a red circle", seed=one.settings.seed, **QUICK)[0]
    assert again.rounds[0].ids == one.rounds[0].ids


@pytest.mark.parametrize("name", ELSEWHERE)
def test_names_from_elsewhere_are_answered_with_ours(model, name):
    with pytest.raises(UserError, match=f"there is no {name}: "):
        model.generate("a red circle", **{name: 3})


def test_other_mistakes_are_one_line(model, pixels):
    for arguments, said in (
        ({"guidence": 3}, "did you mean guidance"),
        ({"samples": 0}, "samples must be a whole number"),
        ({"samples": 1.5}, "samples must be a whole number"),
        ({"seed": [1, 2]}, "seed lists 2 numbers for 1 chains"),
        ({"first_row": -1}, "first_row must be 0 or more"),
        ({"max_batch": 0}, "max_batch must be a whole number"),
    ):
        with pytest.raises(UserError, match=said):
            model.generate("a red circle", **arguments)
    with pytest.raises(UserError, match="a prompt must be text, not int"):
        model.generate([7])
    with pytest.raises(UserError, match="2 images but 3 texts"):
        model.judge([pixels] * 2, ["a"] * 3)


def test_devices_and_dtypes(model):
    assert model.to("cpu") is model and model.device.type == "cpu" and model.dtype == torch.float32
    model.to(torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert next(model.model.core.model.vqmodel.parameters()).dtype == torch.float32
    for wrong, said in (
        ("hpu", "not supported"),
        ("meta", "not supported"),
        ("nonsense", "is no device"),
        (7.5, "takes"),
    ):
        with pytest.raises(UserError, match=said):
            model.to(wrong)
    with pytest.raises(UserError, match="float16 is not supported"):
        model.to(torch.float16)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no cuda device here"):
            JanusR1.from_pretrained("tiny-base", device="cuda")


def test_from_pretrained_takes_a_path_and_a_torch_dtype(tiny_folder):
    model = JanusR1.from_pretrained(tiny_folder, dtype=torch.bfloat16, device=torch.device("cpu"))
    assert model.dtype == torch.bfloat16


def test_a_notebook_shows_a_chain(model, pixels):
    chain = model.edit(pixels, "add a <b>ring</b> & more", **QUICK)[0]
    shown = chain._repr_html_()
    assert shown.count("data:image/png;base64,") == 2 and "draft 1, final" in shown
    assert "&lt;b&gt;ring" in shown and "<b>ring" not in shown
    assert len(repr(chain)) < 120 and repr(chain).startswith("Chain('add a <b>ring</b> & more': 1 draft, final 1, ")
    assert "ids" not in repr(chain.rounds[0])
