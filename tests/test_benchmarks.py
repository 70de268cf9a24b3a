"""The benchmarks run: every arm draws what it says it draws, on a model of a few thousand weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import chain
import decode
import exactness
import machine
import rl_step
from janus_r1.chain import Settings


@pytest.fixture
def ready(tiny):
    """transformers' generate asks for token ids in its generation config."""
    special, settings = tiny.layout.special, tiny.core.generation_config
    settings.bos_token_id, settings.eos_token_id, settings.pad_token_id = special.bos, special.eos, special.pad
    settings.generation_kwargs = {"boi_token_id": special.begin_of_image}
    return tiny


def test_every_decoder_draws_a_shortened_image(ready):
    decode.shorten(ready, 5)
    arms = decode.measure(ready, 2, decode.options_from(["--repeats", "1"]))
    for arm in arms.values():
        found = decode.rates(ready, 2, arm, bandwidth=1e9)
        assert len(arm["seconds"]) == 1 and arm["peak_bytes"] > 0
        assert found["tokens_per_second"] == pytest.approx(5 * found["images_per_second"])
        assert found["share_of_bandwidth"] == pytest.approx(found["bytes_per_second"] / 1e9)


def test_chains_of_both_structures_do_the_same_rounds(tiny):
    settings = Settings(rounds=3, guidance=3.0, history="last", text_temperature=1.0, max_reason_tokens=4)
    ours, official = chain.measure(tiny, 4, settings, accept=(0.5, 0.5), repeats=1).values()
    assert ours["images"] == 4 + 2 + 1 and official["images"] == 4 * 3
    assert 0 < ours["prefilled"] < official["prefilled"]


def test_windows_are_compared_with_one_by_one(tiny):
    rows: list = []
    exactness.compare(tiny, 6, [1, 3], rows, seed=0)
    assert [(row["kind"], row["batch"]) for row in rows] == [
        (kind, batch) for batch in (1, 3) for kind in ("draft", "edit", "chain")
    ]
    assert all(row["equal_images"] == row["equal_ids"] == 1 for row in rows)  # float32
    assert {row["equal_texts"] for row in rows} == {None, 1.0}
    assert all(row["forwards"]["one_by_one"] == tiny.image_tokens - 1 for row in rows if row["forwards"])
    tally = exactness.Tally()
    tally.add(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1, 2], [3, 5]]))
    assert tally.row("draft", 2)["equal_images"] == 0.5 and tally.row("draft", 2)["equal_ids"] == 0.75


def test_forwards_of_repairs_are_counted(tiny):
    counts = chain.repair_forwards(tiny, 2, Settings(rounds=3), window=1)
    assert len(counts) == 2 and all(n == tiny.image_tokens - 1 for row in counts for n in row)
    assert all(1 <= len(row) <= 3 for row in counts)
    own = chain.own_chains(tiny, 1, Settings(rounds=2, max_reason_tokens=3, early_stop=False), window=1)
    assert own["own_rounds"] == 2 and own["own_drawing"] == 2 * (tiny.image_tokens - 1) and own["own_saying"] <= 4


def test_the_gpus_list_runs_small_and_refuses_what_it_does_not_hold():
    script = Path(__file__).parent.parent / "benchmarks" / "gpu.sh"
    own = {**os.environ, "SMALL": "1", "PYTHON": sys.executable}
    ran = subprocess.run([script, "alone"], env=own, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "tiny float32" in ran.stdout and "1 ours" in ran.stdout
    refused = subprocess.run([script, "alone", "most"], env=own, capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "no part most" in refused.stderr


def test_the_gpus_list_tells_what_it_would_run():
    """Every line is a command that its script takes, and all that was never measured is among them."""
    script = Path(__file__).parent.parent / "benchmarks" / "gpu.sh"
    subprocess.run(["bash", "-n", script], check=True)
    own = {**os.environ, "DRY": "1", "PYTHON": "/no/python"}
    ran = subprocess.run([script], env=own, capture_output=True, text=True, check=True)
    lines = [line.split() for line in ran.stdout.splitlines() if not line.startswith("== ")]
    scripts = {"decode": decode, "chain": chain, "exactness": exactness, "rl_step": rl_step}
    asked = {name: [] for name in (*scripts, "gpu_kernels")}
    for python, path, *argv in lines:
        assert python == "/no/python" and (script.parent.parent / path).exists()
        name = Path(path).stem
        asked[name].append(scripts[name].options_from(argv) if name in scripts else argv)
    assert any(o.preset == "7b" and o.batch == "64" and "official" in o.arms for o in asked["decode"])
    assert any(o.preset == "7b" and o.window == [4, 8, 16] for o in asked["decode"])
    assert any(o.preset == "7b" and o.rounds == 3 for o in asked["chain"])
    assert any(o.model == "tiny-repair" and o.repairs and o.window == 8 for o in asked["chain"])
    assert any(o.preset == "7b" and o.prompts == 8 for o in asked["rl_step"])
    assert {o.dtype for o in asked["exactness"]} == {"float32", "bfloat16"}


def test_results_are_appended_and_drawn(tmp_path):
    rows = [{"batch": b, "arms": {name: {"images_per_second": b / 2.0} for name in decode.ARMS}} for b in (1, 4)]
    for preset in ("tiny", "1b"):
        machine.append(tmp_path / "r" / "a.jsonl", {"preset": preset, "machine": "m", "dtype": "d", "rows": rows})
    lines = (tmp_path / "r" / "a.jsonl").read_text().splitlines()
    pytest.importorskip("matplotlib")
    decode.plot([json.loads(line) for line in lines], tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_bandwidth_of_this_machine_is_that_of_a_memory():
    assert 1e8 < machine.copy_bandwidth("cpu", repeats=1) < 1e13
