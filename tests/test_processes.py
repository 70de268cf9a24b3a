"""Several processes: the same command under ``accelerate launch`` does the work of one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from janus_r1.train.loop import newest_checkpoint

LAUNCH = ["-m", "accelerate.commands.launch", "--cpu", "--num_machines", "1", "--mixed_precision", "no"]


def train(folder: Path, out: Path, processes: int) -> None:
    """Two steps of reinforcement learning as a user would start them."""
    recipe = {
        "run": {"out": str(out), "steps": 2, "save_every": 2, "threads": 1, "precision": "no"},
        "model": str(folder),
        "rewards": [{"kind": "world"}],
        "prompts_per_step": 4,
        "group": 3,
        "rounds": 2,
        "max_reason_tokens": 6,
        "micro_batch": 4,
        "eval_every": 0,
        "lr": 1e-3,
    }
    config = out.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(recipe))
    command = ["train", "rl", "--config", str(config)]
    launch = (
        [*LAUNCH, "--num_processes", str(processes), "-m", "janus_r1.cli"] if processes > 1 else ["-m", "janus_r1.cli"]
    )
    done = subprocess.run([sys.executable, *launch, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_learn_what_one_does(tiny_folder, tmp_path):
    train(tiny_folder, tmp_path / "one", 1)
    train(tiny_folder, tmp_path / "two", 2)
    one, two = (
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("one", "two")
    )
    for alone, together in zip(one, two, strict=True):
        for name in ("loss", "grad_norm", "reward_draw", "reward_judge", "rounds"):
            assert together[name] == pytest.approx(alone[name], rel=1e-3, abs=1e-5), name
    weights = [load_file(newest_checkpoint(tmp_path / run) / "model.safetensors") for run in ("one", "two")]
    changed = [torch.linalg.vector_norm(weights[0][k] - weights[1][k]) for k in weights[0]]
    assert max(changed) < 1e-2
