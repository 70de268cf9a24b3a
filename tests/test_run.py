"""A run whatever it trains: one process a folder, signals, broken weights, damaged checkpoints, what may change."""

from __future__ import annotations

import json
import math
import multiprocessing
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from janus_r1.errors import UserError
from janus_r1.files import MARKER, locked
from janus_r1.train.checkpoint import newest_checkpoint
from janus_r1.train.loop import RunOptions, running


@dataclass
class ToyRecipe:
    run: RunOptions = field(default_factory=RunOptions)
    lr: float = 0.1
    weight_decay: float = 0.0
    width: int = 3


def recipe(out: Path, steps: int = 4, **changes) -> ToyRecipe:
    run = RunOptions(
        str(out), steps, warmup=1, cooldown=0.0, precision="no", save_every=2, preview_every=0, log_every=1
    )
    return replace(ToyRecipe(run), **changes)


def train(toy: ToyRecipe, resume: bool = False, before_step=lambda step, module: None) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Linear(toy.width, 1)
    optimizer = torch.optim.AdamW(module.parameters(), lr=toy.lr, weight_decay=toy.weight_decay)

    def loss(trained, batch):
        value = (trained(batch) - 1).square().mean()
        return value, {"error": value.detach()}

    with running(toy, module, [optimizer], resume=resume) as run:
        for step in run.steps():
            before_step(step, module)
            run.end_step(run.update([torch.randn(5, toy.width)], loss))
    return module


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


# ------------------------------------------------------------------------------- going on otherwise


def test_named_keys_may_change_when_a_run_is_resumed_and_are_recorded(tmp_path):
    train(recipe(tmp_path / "a", steps=2))
    train(recipe(tmp_path / "a", lr=0.01, weight_decay=0.5), resume=True)
    changes = json.loads((tmp_path / "a" / "changes.jsonl").read_text())
    assert changes["step"] == 2 and changes["changed"]["lr"] == [0.1, 0.01]
    assert json.loads((tmp_path / "a" / "recipe.json").read_text())["lr"] == 0.01
    saved = torch.load(newest_checkpoint(tmp_path / "a") / "optimizers.pt", weights_only=True)
    (group,) = saved[0]["param_groups"]
    assert group["lr"] == pytest.approx(0.01) and group["weight_decay"] == 0.5
    with pytest.raises(UserError, match="recipe changed in width"):
        train(recipe(tmp_path / "a", width=4), resume=True)


def test_a_run_that_broke_keeps_its_checkpoint_and_goes_on_from_it(tmp_path):
    def poison(step, module):
        if step == 3:
            module.weight.data.fill_(math.nan)

    with pytest.raises(UserError, match=r"step 3: .*not a number.*--resume and a lower --lr"):
        train(recipe(tmp_path), before_step=poison)
    assert newest_checkpoint(tmp_path).name == "step_0000002"
    gone_on = train(recipe(tmp_path, lr=0.01), resume=True)
    assert all(torch.isfinite(p).all() for p in gone_on.parameters())
    rows = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [0, 1, 2, 3]


def test_a_checkpoint_that_no_step_goes_on_from_is_none(tmp_path):
    """Weights of 1e30 are numbers; the loss of the next step is not. The checkpoint before is kept until then."""

    def fill(weight):
        weight.data.fill_(1e30)

    def ruin(step, module):
        if step == 1:  # as the step ends
            module.weight.register_post_accumulate_grad_hook(fill)

    toy = recipe(tmp_path, steps=6)
    toy.run.save_every = 1
    with pytest.raises(UserError, match=r"step 2: .*of no use before it.*step_0000001 is whole.*a lower --lr"):
        train(toy, before_step=ruin)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_0000001"]
    gone_on = train(replace(toy, lr=0.01), resume=True)
    assert all(torch.isfinite(p).all() and (p.abs() < 100).all() for p in gone_on.parameters())
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_0000006"]


def test_no_checkpoint_is_written_of_weights_that_are_no_numbers(tmp_path):
    """A weight that the loss never meets: no gradient tells of it."""

    class Hidden(nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 1)
            self.idle = nn.Parameter(torch.zeros(2))

    module = Hidden()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)

    def loss(trained, batch):
        return trained(batch).square().mean(), {}

    with pytest.raises(UserError, match="idle is not a number"), running(recipe(tmp_path), module, [optimizer]) as run:
        for step in run.steps():
            figures = run.update([torch.ones(2, 3)], loss)
            if step == 3:
                module.idle.data[1] = math.inf
            run.end_step(figures)
    assert newest_checkpoint(tmp_path).name == "step_0000002"


# ---------------------------------------------------------------------------------- its own folder


def test_a_second_process_is_told_that_the_folder_is_in_use(tmp_path):
    with locked(tmp_path / "a"), multiprocessing.get_context("fork").Pool(1) as pool:
        assert "in use by another" in pool.apply(_complaint_of, (tmp_path / "a",))
    assert _complaint_of(tmp_path / "a") == ""


def _complaint_of(out: Path) -> str:
    try:
        train(recipe(out))
    except UserError as error:
        return str(error)
    return ""


def test_only_checkpoints_of_a_run_are_cleaned(tmp_path):
    for name in ("mine", "step_0000001", "step_best"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "keep.txt").write_text("mine")
    (tmp_path / "checkpoints" / ".step_0000001.77.tmp").mkdir()
    train(recipe(tmp_path))
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["mine", "step_0000001", "step_0000004", "step_best"]
    assert (tmp_path / "checkpoints" / "step_0000004" / MARKER).is_file()


@pytest.mark.parametrize("name", ["model.safetensors", "optimizers.pt", "ema.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "removed"])
def test_a_damaged_checkpoint_is_one_clear_line(tmp_path, name, damage):
    toy = recipe(tmp_path)
    toy.run.ema = 0.5
    train(toy)
    path = newest_checkpoint(tmp_path) / name
    content = path.read_bytes()
    changed = {"cut": content[:-9], "changed": content[:-9] + b"\xff" + content[-8:], "removed": b""}[damage]
    path.write_bytes(changed)
    if damage == "removed" and name != "state.json":
        path.unlink()
    toy.run.steps = 6
    with pytest.raises(UserError) as caught:
        train(toy, resume=True)
    assert name in str(caught.value) and "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------ signals

STOPPED = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test that runs in the background ignores it
    from test_run import recipe, train
    def before_step(step, module):
        if step == 3 and "stop" in sys.argv:
            os.kill(os.getpid(), signal.{name})
    train(recipe(Path({out!r}), steps=6), "resume" in sys.argv, before_step)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_saves_what_was_learnt_and_says_one_line(tmp_path, name):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = textwrap.dedent(STOPPED.format(tests=str(Path(__file__).parent), out=str(tmp_path / "a"), name=name))
        return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)

    stopped = run("stop")
    assert stopped.returncode == 128 + getattr(signal, name), stopped.stderr
    said = [line for line in stopped.stderr.splitlines() if line.startswith("janus-r1")]
    assert said == [f"janus-r1: stopped by {name}: go on from step 3 with --resume"]
    assert newest_checkpoint(tmp_path / "a").name == "step_0000003"
    assert [path.name for path in tmp_path.iterdir()] == ["a"], "neither lock nor temporary file is left"
    assert run("resume").returncode == 0
    whole = train(recipe(tmp_path / "whole", steps=6))
    resumed = load_file(newest_checkpoint(tmp_path / "a") / "model.safetensors")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.state_dict().items())


# ----------------------------------------------------------------------------------------- trackers


def test_trackers_go_by_name(tmp_path):
    toy = recipe(tmp_path / "a")
    train(toy)
    told = EventAccumulator(str(tmp_path / "a" / "tensorboard")).Reload().Tags()["scalars"]
    assert "loss" in told and "step" not in told  # the step is where a figure stands, not one of them
    toy = recipe(tmp_path / "b")
    toy.run.trackers = []
    train(toy)
    assert not (tmp_path / "b" / "tensorboard").exists()
    toy.run.trackers, toy.run.out = ["tensorbord"], str(tmp_path / "c")
    with pytest.raises(UserError, match=r"no tracker 'tensorbord'.*tensorboard"):
        train(toy)


def test_metrics_that_are_damaged_are_told_and_a_cut_line_is_dropped(tmp_path):
    train(recipe(tmp_path))
    path = tmp_path / "metrics.jsonl"
    rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*rows, '{"step": 4, "lo']))
    train(recipe(tmp_path, steps=6), resume=True)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == list(range(6))
    for damage in ("[]", '{"loss": 1}', "x", '{"step": "1"}'):
        path.write_text("".join([rows[0], f"{damage}\n", *rows[2:]]))
        with pytest.raises(UserError, match="line 2 is damaged"):
            train(recipe(tmp_path, steps=7), resume=True)
