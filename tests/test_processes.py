"""Several processes: the same command under ``accelerate launch`` does the work of one, whole or sharded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from safetensors.torch import load_file

from janus_r1.errors import UserError
from janus_r1.reading import read_json
from janus_r1.recipe import load_recipe
from janus_r1.train.checkpoint import newest_checkpoint
from janus_r1.train.optim import muon_and_adamw
from janus_r1.train.rl import rl
from janus_r1.train.rl_recipe import RlRecipe

CONFIGS = Path(__file__).parent.parent / "configs" / "accelerate"
RECIPE = {
    "run": {"steps": 2, "save_every": 1, "threads": 1, "precision": "no", "warmup": 1, "cooldown": 0.0, "ema": 0.5},
    "rewards": [{"kind": "world"}],
    "prompts_per_step": 4,
    "group": 3,
    "rounds": 2,
    "max_reason_tokens": 6,
    "micro_batch": 4,
    "eval_every": 0,
    "lr": 1e-3,
    "kl": 0.1,
    "judge_balanced": True,
}


@pytest.fixture(scope="module")
def config(tiny_folder, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "rl.yaml"
    path.write_text(yaml.safe_dump(RECIPE | {"model": str(tiny_folder)}))
    return path


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory) -> Path:
    """Two steps of reinforcement learning in this process; ``alone/first`` is the run after one of them."""
    out = tmp_path_factory.mktemp("alone")
    recipe = load_recipe(RlRecipe, config, ["--run.out", str(out / "both"), "--run.steps", "1"])
    rl(recipe)
    shutil.copytree(out / "both", out / "first")
    recipe.run.steps = 2
    rl(recipe, resume=True)
    return out


def launch(how: str, config: Path, out: Path, *options: str) -> None:
    """Two processes, as a user would start them, but on the CPU."""
    start = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / f"{how}.yaml")]
    command = ["-m", "janus_r1.cli", "train", "rl", "--config", str(config), "--run.out", str(out), *options]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*start, "--num_processes", "2", *command], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def assert_alike(one: Path, two: Path) -> None:
    """Rewards, losses and gradients of both steps, and the weights they led to."""
    rows = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, two)]
    for alone, together in zip(*rows, strict=True):
        for name in ("loss", "grad_norm", "reward_draw", "reward_judge", "rounds"):
            assert together[name] == pytest.approx(alone[name], rel=1e-3, abs=1e-5), name
    first, second = (load_file(newest_checkpoint(run) / "model.safetensors") for run in (one, two))
    assert first.keys() == second.keys()
    assert max(torch.linalg.vector_norm(first[name] - second[name]) for name in first) < 1e-2


def optimizer_state(run: Path) -> dict:
    return torch.load(newest_checkpoint(run) / "optimizers.pt", weights_only=True)[0]["state"]


def test_two_processes_learn_what_one_does(config, alone, tmp_path):
    launch("ddp", config, tmp_path)
    assert read_json(tmp_path / "environment.json")["processes"] == 2
    assert_alike(alone / "both", tmp_path)


def test_two_processes_that_share_the_weights_go_on_where_one_stopped(config, alone, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(alone / "first", out)
    launch("fsdp2", config, out, "--resume")
    environment = read_json(out / "environment_step_0000001.json")
    assert (environment["processes"], environment["distributed"]) == (2, "FSDP")
    assert_alike(alone / "both", out)
    drawn, expected = (load_file(run / "model" / "model.safetensors") for run in (out, alone / "both"))
    assert all((drawn[name].float() - expected[name].float()).abs().max() < 2e-2 for name in expected)
    cut_up, whole = (optimizer_state(run) for run in (out, alone / "both"))
    assert cut_up.keys() == whole.keys()
    for index in whole:
        assert torch.allclose(cut_up[index]["exp_avg"], whole[index]["exp_avg"], rtol=1e-2, atol=1e-4)


def test_muon_is_refused_where_weights_are_cut_up(tiny, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match="optimizer: adamw"):
        muon_and_adamw(tiny, 1e-3, 0.0)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_every_config(path):
    read = load_config_from_file(str(path))
    assert read.num_processes == 8
    assert f"accelerate launch --config_file configs/accelerate/{path.name}" in path.read_text().splitlines()[0]
