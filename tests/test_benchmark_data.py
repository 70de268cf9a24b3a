"""The benchmarks of data: they run the product's own import and loader, and their arithmetic is right."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import data_memory
import data_wait
from janus_r1.data import importing
from janus_r1.data.store import Store


def test_memory_is_told_after_shares_of_the_rows(monkeypatch, tmp_path):
    assert data_memory.over_the_rows(list(range(101))) == {"10%": 10, "50%": 50, "100%": 100}
    monkeypatch.setattr(importing, "write_shard", importing.write_shard)  # put back afterwards
    figures = data_memory.measure_import(tmp_path, Namespace(rows=40, side=16, processes=1))
    assert len(Store(tmp_path / "store")) == 40
    assert figures["import_mb"].keys() == figures["read_mb"].keys() == {"10%", "50%", "100%"}
    assert figures["import_rows_a_second"] > 0


def test_an_epoch_of_sft_rows_is_made(monkeypatch, tmp_path):
    made = []
    plain = data_memory.StoreRows.finish
    monkeypatch.setattr(data_memory.StoreRows, "finish", lambda *args: made.append(plain(*args)) or made[-1])
    figures = data_memory.measure_sft(tmp_path, rows=128, side=16)
    assert [len(rows.images) + len(rows.verdicts) for rows in made] == [64, 64]
    assert figures["sft_rows_a_second"] > 0 and figures["sft_mb"]["100%"] > 0


def test_steps_tell_waiting_from_learning(tmp_path):
    data_memory.write_store(tmp_path / "store", 48, 32, data_wait.GRAIN)
    arm = data_wait.measure_steps(tmp_path, Namespace(steps=1, workers="0", batch=10))["arms"]["0 workers"]
    assert arm["seconds_waiting"] > 0 and arm["seconds_learning"] > 0
    whole = arm["seconds_waiting"] + arm["seconds_learning"]
    assert arm["share_waiting"] == pytest.approx(arm["seconds_waiting"] / whole)


def test_rows_of_the_large_recipe_bound_its_step(tiny, tmp_path):
    data_memory.write_store(tmp_path, 48, 32)
    found = data_wait.measure_rows(tmp_path, tiny, steps=1)
    one, eight = found["arms"]["1 GPUs"], found["arms"]["8 GPUs"]
    assert found["rows_a_step"] == 128 and one["tokens_a_process"] > 128 * tiny.image_tokens
    assert one["tokens_a_process"] > 4 * eight["tokens_a_process"] > 0  # a process has its own rows alone
    free = data_wait.bounds(of_worker=30.0, of_main=0.05, gpus=1)
    assert free["shortest_step_waiting_under_5_percent"] == pytest.approx(2.0)  # 30 s over 15 workers
    bound = data_wait.bounds(of_worker=1.0, of_main=0.2, gpus=8)
    assert bound["shortest_step_waiting_under_5_percent"] == pytest.approx(4.0)  # a twentieth of it is 0.2 s
