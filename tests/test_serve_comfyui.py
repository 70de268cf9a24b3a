"""The ComfyUI nodes, with a stand-in for the part of ComfyUI that they import; the models are real."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from janus_r1.api import JanusR1
from serve_house import severe

FOLDER = Path(__file__).parent.parent / "integrations" / "comfyui"


class Kind:
    """io.Image, io.Int, ...: remembers what a schema says of its inputs and outputs."""

    @staticmethod
    def Input(name, **options):
        return SimpleNamespace(name=name, **options)

    @staticmethod
    def Output(display_name, **options):
        return SimpleNamespace(name=display_name, **options)


class Interrupted(Exception):
    pass


@pytest.fixture
def comfy(monkeypatch):
    """What stands for ComfyUI: ``progress`` is what the bar was told, ``interrupt_after`` rounds it interrupts."""
    state = SimpleNamespace(progress=[], interrupt_after=None)

    class Bar:
        def __init__(self, total):
            state.total = total

        def update_absolute(self, value):
            state.progress.append(value)

    def check():
        if state.interrupt_after is not None and len(state.progress) >= state.interrupt_after:
            raise Interrupted

    kinds = dict.fromkeys(("Image", "String", "Int", "Float", "Boolean", "Combo"), Kind)
    io = SimpleNamespace(
        **kinds,
        Custom=lambda name: Kind,
        ComfyNode=object,
        Schema=lambda **told: SimpleNamespace(**told),
        NodeOutput=lambda *values: values,
    )
    modules = {name: ModuleType(name) for name in ("comfy", "comfy.utils", "comfy.model_management", "comfy_api")}
    modules["comfy_api.latest"] = ModuleType("comfy_api.latest")
    modules["comfy_api.latest"].io, modules["comfy_api.latest"].ComfyExtension = io, object
    modules["comfy.utils"].ProgressBar = Bar
    modules["comfy.model_management"].throw_exception_if_processing_interrupted = check
    modules["comfy"].utils, modules["comfy"].model_management = (
        modules["comfy.utils"],
        modules["comfy.model_management"],
    )
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    init, where = FOLDER / "__init__.py", [str(FOLDER)]
    spec = importlib.util.spec_from_file_location("janus_comfy", init, submodule_search_locations=where)
    package = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "janus_comfy", package)
    spec.loader.exec_module(package)
    state.nodes = sys.modules["janus_comfy.nodes"]
    state.extension = asyncio.run(package.comfy_entrypoint())
    yield state
    sys.modules.pop("janus_comfy.nodes", None)


@pytest.fixture
def model(tiny_folder) -> JanusR1:
    return JanusR1.from_pretrained(str(tiny_folder))


SAMPLING = {"seed": 3, "samples": 2, "rounds": 2, "guidance": 1.5, "temperature": 1.0, "final": "last"}


def test_schemas_name_what_execute_takes(comfy):
    nodes = asyncio.run(comfy.extension.get_node_list())
    assert [node.define_schema().node_id[7:] for node in nodes] == ["Load", "Draw", "Edit", "Judge"]
    for node in nodes:
        inputs = {item.name: getattr(item, "default", None) for item in node.define_schema().inputs}
        taken = inspect.signature(node.execute).parameters
        plain = {name for name, item in taken.items() if item.kind is not item.VAR_KEYWORD}
        assert plain <= set(inputs)
        assert set(inputs) - plain <= set(SAMPLING)


def test_draw_gives_the_chains_that_generate_gives(comfy, model):
    finals, drafts, said = comfy.nodes.JanusR1Draw.execute(model, "a red circle", **SAMPLING)
    alone = model.generate("a red circle", samples=2, seed=3, rounds=2)
    assert finals.shape == (2, 64, 64, 3) and finals.dtype == torch.float32 and 0 <= finals.min() <= finals.max() <= 1
    for final, chain in zip(finals, alone, strict=True):
        assert np.abs((final.numpy() * 255).round() - chain.pixels).max() <= 1  # decoded in a batch there
    assert len(drafts) == sum(len(chain.rounds) for chain in alone) == said.count("p_yes")
    assert comfy.progress[-1] == len(drafts) and comfy.total == 4


def test_edit_and_judge_take_comfys_pictures(comfy, model):
    image = torch.rand(2, 48, 32, 4)
    finals, _, _ = comfy.nodes.JanusR1Edit.execute(model, image, "make it red", **SAMPLING | {"samples": 1})
    assert finals.shape == (1, 64, 64, 3)
    p_yes, accepted, said = comfy.nodes.JanusR1Judge.execute(model, image, "a red circle")
    assert 0 < p_yes < 1 and isinstance(accepted, bool) and len(said.splitlines()) == 2


def test_an_interruption_takes_effect_when_a_round_ends(comfy, model):
    comfy.interrupt_after = 1
    asked = SAMPLING | {"rounds": 8, "samples": 1}
    with pytest.raises(Interrupted):
        comfy.nodes.JanusR1Draw.execute(severe(model), "a red circle", **asked)
    assert comfy.progress == [1]


def test_load_keeps_a_model(comfy, tiny_folder):
    (first,) = comfy.nodes.JanusR1Load.execute(str(tiny_folder), "auto", "cpu")
    (second,) = comfy.nodes.JanusR1Load.execute(str(tiny_folder), "auto", "cpu")
    assert first is second and isinstance(first, JanusR1)
