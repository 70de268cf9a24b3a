"""Worker processes change when a step is prepared, never what it is."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from janus_r1.data.edit_plan import EditCounts, plan
from janus_r1.errors import UserError
from janus_r1.segments import Drawn, Seen, Text
from janus_r1.train.ahead import Ahead
from janus_r1.train.checkpoint import newest_checkpoint
from janus_r1.train.loop import RunOptions
from janus_r1.train.sft import Parts, SftRecipe, sft, step_rows

EVERY = {"shares": {"edit": 0.25, "redraw_edit": 0.25, "judge_edit": 0.25, "compare_edit": 0.25}, "rows": 8}


def parts(folder, out, workers: int) -> Parts:
    run = RunOptions(out=str(out), steps=5, precision="no", threads=1, workers=workers)
    return Parts(SftRecipe(run=run, model=str(folder), candidates="/nowhere", **EVERY))


def content(segment: Text | Drawn | Seen) -> tuple:
    if isinstance(segment, Seen):
        return (segment.pixels.tobytes(),)
    return segment.ids, segment.learn, getattr(segment, "weights", None)


def rows_of(made: Parts, step: int) -> list:
    return [[[content(s) for s in row] for row in rows] for rows in step_rows(made, step)]


def test_rows_with_workers_are_those_without(tiny_folder, tmp_path):
    alone, helped = (parts(tiny_folder, tmp_path, workers) for workers in (0, 2))
    for step in (0, 1, 4, 2):  # a run that resumes begins somewhere else
        assert rows_of(alone, step) == rows_of(helped, step)


def test_workers_know_no_torch_when_their_job_does_not():
    counts = EditCounts(draw=1, redraw=1, judge=1, compare=1)
    jobs = [partial(plan, counts, random.Random(0)), partial(eval, "sorted(__import__('sys').modules)")]
    ahead = Ahead(1, len(jobs), lambda step: (step, jobs[step]))
    kept, made = ahead(0)
    expected = plan(counts, random.Random(0))
    assert kept == 0 and (made.judge[0].pictures[2] == expected.judge[0].pictures[2]).all()
    _, modules = ahead(1)
    assert "janus_r1.data.edit_plan" in modules
    assert not {"torch", "transformers", "accelerate"} & set(modules)


@pytest.mark.parametrize(
    ("job", "complaint"),
    [
        (partial(eval, "1 / 0"), "^step 3: a worker process failed: ZeroDivisionError: division by zero$"),
        (partial(os._exit, 1), "^step 3: a worker process died"),
    ],
)
def test_what_fails_in_a_worker_is_said_in_one_line(job, complaint):
    with pytest.raises(UserError, match=complaint):
        Ahead(1, 4, lambda step: (None, job))(3)


def test_no_step_beyond_the_last_is_begun():
    begun = []
    ahead = Ahead(2, 3, lambda step: (begun.append(step), partial(int, step)))
    assert [ahead(step)[1] for step in range(3)] == [0, 1, 2] and begun == [0, 1, 2]


def test_a_run_resumed_with_workers_is_one_without(tiny_folder, tmp_path):
    def train(out: str, steps: int, workers: int, resume: bool = False) -> dict[str, torch.Tensor]:
        run = RunOptions(str(tmp_path / out), steps=steps, warmup=1, cooldown=0.0, preview_every=0, threads=1)
        recipe = SftRecipe(run=replace(run, workers=workers), model=str(tiny_folder), candidates="/nowhere", **EVERY)
        sft(recipe, resume)
        return load_file(newest_checkpoint(tmp_path / out) / "model.safetensors")

    whole = train("whole", 3, workers=0)
    train("broken", 2, workers=2)
    resumed = train("broken", 3, workers=2, resume=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
