"""The mean of models' weights."""

from __future__ import annotations

import json

import pytest
import torch

from janus_r1.cli import main
from janus_r1.errors import UserError
from janus_r1.model.loading import average, load, save


@pytest.fixture
def three(tiny, tmp_path) -> list[str]:
    """Of which one matrix differs; in float32, with weights that no sum of thirds gives back."""
    folders = [str(tmp_path / name) for name in ("one", "two", "three")]
    matrix = tiny.core.lm_head.weight
    for index, folder in enumerate(folders):
        with torch.no_grad():
            matrix.add_(index)
        save(tiny, folder)
    return folders


def test_the_mean_is_of_what_differs_and_nothing_else_changes(tiny, three, tmp_path, capsys):
    out = tmp_path / "mean"
    assert main(["average", str(out), *three, "--dtype", "float32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"] == three
    mean, first = load(str(out)).core.state_dict(), load(three[0]).core.state_dict()
    assert torch.allclose(mean["lm_head.weight"], first["lm_head.weight"] + 4 / 3, atol=1e-5)
    assert all(torch.equal(mean[name], first[name]) for name in first if name != "lm_head.weight")


def test_equal_models_are_their_own_mean(three):
    mean, own = average([three[0]] * 3).core.state_dict(), load(three[0]).core.state_dict()
    assert all(torch.equal(mean[name], own[name]) for name in own)


def test_strangers_and_single_models_are_refused(three, tmp_path, capsys):
    with pytest.raises(UserError, match="two models or more"):
        average(three[:1])
    with pytest.raises(UserError, match="tiny-base is not of the same size"):
        average([three[0], "tiny-base"])
    assert main(["average", str(tmp_path / "none"), three[0], "nowhere/at-all-here"]) != 0
    assert not (tmp_path / "none").exists() and "nowhere" in capsys.readouterr().err
