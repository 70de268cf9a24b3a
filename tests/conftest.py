"""A random model of the real architecture, small enough that the whole chain runs in a second."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports triton: the GPU's kernels run without one

import pytest
import torch

from janus_r1.model.janus import Janus
from janus_r1.model.loading import save
from janus_r1.model.presets import random_model
from janus_r1.model.tokenizer import train_tokenizer
from janus_r1.worlds.shapes.training.model import tiny_config, tokenizer_corpus


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    """Servers of tests are asked directly."""
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture(scope="session")
def words():
    """A tokenizer of the world's language."""
    return train_tokenizer(tokenizer_corpus(count=60), vocab_size=420)


def build(words, seed: int = 0) -> Janus:
    """Random weights, made larger than usual so that logits differ from token to token."""
    config = tiny_config(len(words), num_embeddings=96, hidden=64, layers=2, intermediate=96)
    config.vision_config.hidden_size, config.vision_config.num_hidden_layers = 32, 1
    core = random_model(config, seed)
    with torch.no_grad():
        for name, parameter in core.named_parameters():
            if parameter.ndim == 2 and "vqmodel" not in name:
                parameter.mul_(4.0)
    return Janus(core, words).eval()


@pytest.fixture
def tiny(words) -> Janus:
    return build(words)


@pytest.fixture(scope="session")
def tiny_folder(words, tmp_path_factory) -> Path:
    """The same model, saved in transformers' layout."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save(build(words), folder)
    return folder
