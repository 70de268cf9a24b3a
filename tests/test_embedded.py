"""The embedded models are whole, small, and do what the commands promise."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import JanusForConditionalGeneration

from janus_r1.cli import main
from janus_r1.commands.model import MODEL
from janus_r1.model.loading import EMBEDDED, load
from janus_r1.worlds.base import world

MODELS = sorted(path.name for path in EMBEDDED.glob("tiny-*"))


def test_every_stage_is_embedded():
    assert {"tiny-base", "tiny-sft", "tiny-r1", "tiny-repair", MODEL} == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_is_at_most_20_mb_of_safetensors(name):
    files = [path for path in (EMBEDDED / name).iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md", ".jinja"}


@pytest.mark.parametrize("name", MODELS)
def test_is_an_ordinary_transformers_folder(name):
    core, info = JanusForConditionalGeneration.from_pretrained(EMBEDDED / name, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    head, table = core.lm_head.weight, core.get_input_embeddings().weight
    assert head.data_ptr() != table.data_ptr(), "the text head must not be tied to the embeddings"
    assert not (head == table).all()


def test_saving_keeps_every_weight(tmp_path):
    from janus_r1.model.loading import save

    model = load("tiny-r1")
    save(model, tmp_path / "copy")
    again = load(str(tmp_path / "copy"))
    theirs = again.core.state_dict()
    assert all((value == theirs[name]).all() for name, value in model.core.state_dict().items())


def test_the_config_names_the_dtype_of_the_file(tmp_path):
    """Else transformers would load twice what is stored."""
    from janus_r1.model.loading import save

    save(load("tiny-r1", "float32"), tmp_path / "half", torch.bfloat16)
    for folder in (tmp_path / "half", *(EMBEDDED / name for name in MODELS)):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        own = [part["dtype"] for part in (config, *config.values()) if isinstance(part, dict) and "dtype" in part]
        stored = {str(weight.dtype) for weight in load_file(folder / "model.safetensors").values()}
        assert {f"torch.{name}" for name in own} == stored == {"torch.bfloat16"} and len(own) == 4


def test_eval_world_keeps_its_contract(capsys):
    """The JSON that other tools read; six prompts, one of each family."""
    arguments = ["eval", "world", "--model", "tiny-r1", "--rounds", "1,2", "--limit", "6", "--samples", "1", "--json"]
    assert main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    figures = [result["rounds"][t]["overall"] for t in ("1", "2")]
    figures += list(result["rounds"]["2"]["families"].values())
    figures += [result["introspection"][k] for k in ("triggered", "fixed", "broken", "rounds_used")]
    figures.append(result["verdict"]["accuracy"])
    for figure in figures:
        assert figure["low"] <= figure["mean"] <= figure["high"] and figure["n"] >= 1
    assert set(result["rounds"]["1"]["families"]) == {
        "single_object",
        "two_object",
        "counting",
        "colors",
        "position",
        "color_attr",
    }
    assert {"auroc", "ece"} <= set(result["verdict"])


def test_the_editor_edits(capsys):
    """Far from always; copying the source, as an untaught model does at best, is never right."""
    assert main(["eval", "edit", "--limit", "30", "--no-baselines", "--dtype", "bfloat16", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["run"]["model"] == MODEL and result["both"]["mean"] > 0.15


def test_what_the_repairing_model_finds_is_mostly_true(capsys):
    """Far above chance: of random renderings half of the verdicts would be right, and hardly a reason true."""
    arguments = ["--model", "tiny-repair", "--split", "dense", "--rounds", "1,2", "--limit", "24", "--samples", "1"]
    assert main(["eval", "world", *arguments, "--no-controls", "--variety", "0", "--dtype", "bfloat16", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["reasons"]["true"]["mean"] > 0.7 and result["claims"]["accuracy"]["mean"] > 0.5
    assert result["verdict"]["accuracy"]["mean"] > 0.7


@pytest.mark.parametrize("name", MODELS)
def test_a_prompt_outside_its_language_is_warned_about(name):
    model = load(name)
    assert model.unknown_words("A corgi, on a red sofa!") == ["corgi", "sofa"]
    shapes = world("shapes")
    for kind in ("draw", "edit"):
        texts = [task.prompt for split in shapes.splits(kind) for task in shapes.tasks(split, kind)]
        assert texts and not [text for text in texts if model.unknown_words(text)]
