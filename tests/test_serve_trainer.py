"""Rollouts, weight updates, adapters, and what other front ends send."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from janus_r1.api import JanusR1
from janus_r1.chain import Settings
from janus_r1.engine.decoder import Decoder
from janus_r1.errors import UserError
from janus_r1.serve.house import load_all
from janus_r1.serve.rounds import Drawing, fits, next_rounds
from janus_r1.serve.trainer import add_trainer, checksum
from serve_house import PROMPT, data_uri, picture, pixels_of, png, serving


@pytest.fixture
def model(tiny_folder) -> JanusR1:
    return JanusR1.from_pretrained(str(tiny_folder))


@pytest.fixture
def trained(model, tmp_path):
    """A server with the trainer's endpoints, its model, and the folder for weights."""
    with serving(model) as running:
        add_trainer(running.app, running.house, tmp_path)
        yield running, model, tmp_path


def test_rollouts_are_the_chains_of_generate_with_their_log_probs(trained):
    running, model, _ = trained
    ask = {"prompts": [PROMPT, "three stars"], "samples": 2, "rounds": 2, "seed": 7, "images": True}
    told = running.post("/v1/rollouts", ask).json()["chains"]
    alone = model.generate(ask["prompts"], samples=2, rounds=2, seed=7)
    assert [chain["row"] for chain in told] == [0, 1, 2, 3]
    for chain, same in zip(told, alone, strict=True):
        for item, round_ in zip(chain["rounds"], same.rounds, strict=True):
            assert tuple(item["ids"]) == round_.ids and tuple(item["verdict"]["ids"]) == round_.verdict.ids
            assert item["logprobs"] == pytest.approx(round_.logprobs, abs=1e-4)
            assert np.abs(pixels_of(item["image"]).astype(int) - round_.pixels).max() <= 1
    assert running.post("/v1/rollouts", {"prompts": [" "]}).status_code == 400


def test_new_weights_draw_otherwise_and_the_checksum_says_so(trained, tiny_folder):
    running, model, folder = trained
    before = running.get("/v1/weights").json()["checksum"]
    assert before == checksum(model.model)
    weights = load_file(tiny_folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("generation_head.vision_head.weight"))
    save_file({name: weights[name].flip(0)}, folder / "new.safetensors")
    first = running.client().images.generate(prompt=PROMPT, extra_body={"seed": 1}).data[0]
    digest = hashlib.sha256((folder / "new.safetensors").read_bytes()).hexdigest()
    updated = running.post("/v1/weights", {"file": "new.safetensors", "sha256": digest}).json()
    assert updated["tensors"] == 1 and updated["checksum"] != before
    second = running.client().images.generate(prompt=PROMPT, extra_body={"seed": 1}).data[0]
    assert second.b64_json != first.b64_json
    assert (pixels_of(second.b64_json) == model.generate(PROMPT, seed=1, rounds=2)[0].pixels).all()


def test_weights_that_are_refused_change_nothing(trained, tiny_folder):
    running, _, folder = trained
    before = running.get("/v1/weights").json()["checksum"]
    weights = load_file(tiny_folder / "model.safetensors")
    good = next(iter(weights))
    (folder / "half.safetensors").write_bytes((tiny_folder / "model.safetensors").read_bytes()[:5000])
    (folder / "pickle.safetensors").write_bytes(b"\x80\x04\x95cos\nsystem\n")
    save_file({good: weights[good] + 1, "unknown": torch.ones(1)}, folder / "name.safetensors")
    save_file({good: torch.ones(3)}, folder / "shape.safetensors")
    save_file({good: weights[good] * float("nan")}, folder / "nan.safetensors")
    (folder / "link.safetensors").symlink_to(tiny_folder / "model.safetensors")
    save_file({good: weights[good]}, folder / "sum.safetensors")
    asked = [{"file": f"{name}.safetensors"} for name in ("half", "pickle", "name", "shape", "nan", "link", "missing")]
    asked += [{"file": str(tiny_folder / "model.safetensors")}, {"file": "../x.safetensors"}, {"file": "\x00"}, {}]
    asked += [{"file": "sum.safetensors", "sha256": "0" * 64}]
    for body in asked:
        assert running.post("/v1/weights", body).status_code == 400, body
    assert running.get("/v1/weights").json()["checksum"] == before


def test_without_the_option_there_are_no_such_addresses(model):
    with serving(model) as running:
        assert running.post("/v1/rollouts", {"prompts": ["x"]}).status_code == 404
        assert running.get("/v1/weights").status_code == 404


def test_an_adapter_is_a_model_of_its_own(tiny_folder, tmp_path):
    peft = pytest.importorskip("peft")
    janus = JanusR1.from_pretrained(str(tiny_folder)).model
    targets = r"model\.language_model\.layers\.\d+\.self_attn\.(q_proj|v_proj)"
    config = peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
    peft.get_peft_model(janus.core, config).save_pretrained(tmp_path / "mine")
    models = load_all(str(tiny_folder), "float32", "cpu", "auto", [f"mine={tmp_path / 'mine'}"])
    base, mine = models.values()
    assert list(models) == ["tiny", "mine"]
    assert checksum(base.model) != checksum(mine.model)
    drawn = [one.generate(PROMPT, seed=1, rounds=1)[0].rounds[0].ids for one in (base, mine)]
    assert drawn[0] != drawn[1]
    for wrong in ("mine", "=x", f"a={tiny_folder}", "../x=y"):
        with pytest.raises(UserError):
            load_all(str(tiny_folder), "float32", "cpu", "auto", [wrong])


def test_open_webuis_and_litellms_payloads(model):
    """As these send them: Open WebUI's image engine and its edits, LiteLLM's image_generation."""
    with serving(model, aliases=("gpt-image-1",)) as running:
        webui = {"model": "tiny", "prompt": PROMPT, "n": 1, "size": "512x512", "response_format": "b64_json"}
        answer = running.post("/v1/images/generations", webui, headers={"X-OpenWebUI-User-Name": "x"})
        assert pixels_of(answer.json()["data"][0]["b64_json"]).shape == (512, 512, 3)
        files = [("image[]", ("image.png", png(picture()), "image/png"))]
        fields = {"model": "gpt-image-1", "prompt": "make it red", "n": "1", "size": "auto"}
        edited = running.post("/v1/images/edits", files=files, data=fields)
        assert pixels_of(edited.json()["data"][0]["b64_json"]).shape == (64, 64, 3)
        litellm = {
            "prompt": PROMPT,
            "model": "tiny",
            "user": "u",
            "quality": "standard",
            "style": None,
            "extra": {"a": 1},
        }
        assert running.post("/v1/images/generations", litellm).status_code == 200
        part = {"type": "input_image", "image_url": data_uri(picture())}
        messages = [
            {"role": "system", "content": "x"},
            {"role": "user", "content": [part, {"type": "text", "text": "a"}]},
        ]
        assert running.post("/v1/chat/completions", {"model": "tiny", "messages": messages}).status_code == 200


def test_litellm_itself_where_it_is_installed(model, monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or it asks the internet for prices
    litellm = pytest.importorskip("litellm")
    source = io.BytesIO(png(picture(seed=1)))
    source.name = "x.png"
    with serving(model) as running:
        common = {"model": "openai/tiny", "api_base": f"{running.address}/v1", "api_key": "x"}
        drawn = litellm.image_generation(prompt=PROMPT, extra_body={"seed": 5}, **common).data[0]
        edited = litellm.image_edit(image=source, prompt="make it red", extra_body={"seed": 4}, **common).data[0]
        with pytest.raises(litellm.NotFoundError):
            litellm.image_generation(prompt=PROMPT, **common | {"model": "openai/none"})
    assert (pixels_of(drawn.b64_json) == model.generate(PROMPT, seed=5, rounds=2)[0].pixels).all()
    alone = model.edit(picture(seed=1), "make it red", seed=4, rounds=1)[0]
    assert (pixels_of(edited.b64_json) == alone.pixels).all()


@pytest.mark.parametrize("history", ["full", "last"])
def test_rounds_from_a_context_fed_anew_are_those_of_introspect(model, history):
    """Three rounds of different chains, one of them an edit, beside what the paper's loop gives each alone."""
    settings = [Settings(rounds=3, seed=seed, history=history, early_stop=False) for seed in range(3)]
    source = model.model.sources([picture(seed=9)])[0]
    chains = [
        Drawing(PROMPT, settings[0]),
        Drawing("a ring", settings[1]),
        Drawing("turn it", settings[2], source=source),
    ]
    decoder = Decoder(model.model)
    for _ in range(3):
        for chain, item in zip(chains, next_rounds(decoder, chains, lambda *told: None), strict=True):
            chain.rounds.append(item)
    common = {"rounds": 3, "history": history, "early_stop": False}
    alone = [
        model.generate(PROMPT, seed=0, **common)[0],
        model.generate("a ring", seed=1, **common)[0],
        model.edit(source.pixels, "turn it", seed=2, temperature=1.0, **common)[0],
    ]
    for chain, same in zip(chains, alone, strict=True):
        assert [item.ids for item in chain.rounds] == [item.ids for item in same.rounds]
        assert [item.verdict.ids for item in chain.rounds] == [item.verdict.ids for item in same.rounds]


def test_a_chain_too_long_for_the_model_is_not_begun(model):
    chain = Drawing(PROMPT, Settings(rounds=8, max_reason_tokens=5000))
    assert not fits(model.model, chain)
