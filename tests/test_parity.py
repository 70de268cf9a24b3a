"""What DeepSeek's own modules answered on a small model, recorded; and what ours answers on the same weights.

``benchmarks/parity_original.py --record`` wrote the file (docs/parity.md); weights and inputs come from
names and formulas, so it holds answers only.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import parity_original as parity
from janus_r1.model.janus import Janus
from janus_r1.model.loading import load
from janus_r1.model.presets import random_model
from originals import UNUSED, to_original, write_original

RECORDED = Path(__file__).parent / "data" / "original.npz"


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], parity.Ours]:
    """The recorded answers, ours thinned alike, and our model, loaded from DeepSeek's layout."""
    tokenizer = parity.small_tokenizer()
    config = parity.small_config(len(tokenizer))
    janus = Janus(random_model(config, 0), tokenizer)
    folder = write_original(janus, tmp_path_factory.mktemp("original"))
    shapes = {name: tuple(t.shape) for name, t in to_original(janus.core.state_dict()).items()}
    torch.save(parity.filled(shapes) | UNUSED, folder / "pytorch_model.bin")
    ours = parity.Ours(load(str(folder)))
    inputs = (64, 64, 96, ours.layout.self_check.ids)
    answers = {name: parity.thin(value) for name, value in parity.answers(ours, *inputs).items()}
    with np.load(RECORDED, allow_pickle=False) as recorded:
        return {name: recorded[name] for name in recorded}, answers, ours


def test_every_answer_is_deepseeks(both):
    recorded, ours, _ = both
    assert set(recorded) == set(ours)
    for name, row in parity.compare(recorded, ours).items():
        if "equal" in row:
            assert row["equal"] == 1, name
        else:
            assert row["largest_difference"] <= 1e-5 < row["largest_value"], name
    assert len(np.unique(recorded["vq ids"])) > 10 and len(np.unique(recorded["drawn ids"])) > 10


def test_a_known_fault_would_show(both):
    """transformers' own VQ encode skips the normalisation and finds other ids."""
    recorded, _, ours = both
    assert parity.control(ours, {"vq ids": recorded["vq ids"].reshape(2, -1)}) < 0.9
