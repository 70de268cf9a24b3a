"""Memory estimates against real tensors, and what the command line makes of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from janus_r1.chain import Settings, Task, Verdict
from janus_r1.cli import main
from janus_r1.commands.model import memory_errors
from janus_r1.engine import memory
from janus_r1.engine.decoder import Decoder
from janus_r1.engine.memory import estimate, kv_bytes, weight_bytes
from janus_r1.model.loading import describe, load
from janus_r1.model.presets import preset_config, random_model
from janus_r1.worlds.shapes.training.model import tiny_config

PUBLISHED = {"1b": 4.18e9, "7b": 14.84e9}  # bytes of DeepSeek's bfloat16 checkpoints


@pytest.mark.parametrize("name", PUBLISHED)
def test_weights_of_the_real_sizes(name):
    """The published files hold the image tokenizer (71 M parameters) in bfloat16; we keep it in float32."""
    config = preset_config(name, 700)
    ours = weight_bytes(config, torch.bfloat16)
    vq = sum(p.numel() for p in random_model(config, 0, device="meta").model.vqmodel.parameters())
    assert abs(ours - 2 * vq - PUBLISHED[name]) < 0.02 * PUBLISHED[name]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_of_a_loaded_model(tiny_folder, dtype):
    expected = sum(p.nbytes for p in load(str(tiny_folder), dtype).core.parameters())
    assert weight_bytes(*describe(str(tiny_folder), dtype)) == expected


def test_a_random_model_is_made_in_its_dtype():
    core = random_model(tiny_config(400), 0, torch.bfloat16)
    kept = {p.dtype for name, p in core.named_parameters() if "vqmodel" not in name}
    assert kept == {torch.bfloat16} and torch.get_default_dtype() == torch.float32
    assert {p.dtype for p in core.model.vqmodel.parameters()} == {torch.float32}


def test_step_bytes_of_the_7b(tiny):
    """12.31 GB of weights a token, 480 KiB of cache a token and row: the arithmetic of the real model."""
    config = preset_config("7b", 700)
    assert kv_bytes(config, torch.bfloat16) == 480 * 1024
    assert abs(memory.step_bytes(config, torch.bfloat16, 0, 0) - 12.31e9) < 0.02e9


@pytest.mark.parametrize("history", ["full", "last"])
def test_caches_of_a_whole_chain_are_not_underestimated(tiny, history, monkeypatch):
    """The caches that introspect really ends with, every prompt at its longest and no verdict Yes."""
    from janus_r1 import introspect as algorithm

    settings = Settings(rounds=3, guidance=3.0, early_stop=False, history=history, max_reason_tokens=9)
    batches = []
    monkeypatch.setattr(algorithm, "_Batch", type("Kept", (algorithm._Batch,), {"run": keep_run(batches)}))
    algorithm.introspect(tiny, [Task("red " * 150), Task("blue " * 150)], settings)
    streams = (batches[0].drawing, batches[0].seeing)
    real = sum(s.cache.keys.nbytes + s.cache.values.nbytes for s in streams) / 2
    assert real <= estimate(tiny.core.config, torch.float32, settings).caches <= 1.3 * real


def test_caches_of_a_chain_that_mends_are_not_underestimated(tiny, monkeypatch):
    """Every draft has streams of its own: the largest of each kind, texts at their longest."""
    from janus_r1 import introspect as algorithm

    tiny.format = "repair"
    settings = Settings(rounds=3, guidance=3.0, early_stop=False, max_reason_tokens=100, max_list_tokens=30)
    said = Verdict(False, f"No, {'make the red ring blue and then ' * 9}.", 0.1)
    monkeypatch.setattr(algorithm, "say_verdicts", lambda *args: [said, said])
    streams, opened = [], Decoder.open
    monkeypatch.setattr(Decoder, "open", lambda self, *args: streams.append(opened(self, *args)) or streams[-1])
    chains = algorithm.introspect(tiny, [Task("red " * 150), Task("blue " * 150)], settings)
    assert chains[0].rounds[1].repairs == 0
    sizes = [s.cache.keys.nbytes + s.cache.values.nbytes for s in streams]
    real = max(a + b for a, b in zip(sizes[::2], sizes[1::2], strict=True)) / 2
    assert real <= estimate(tiny.core.config, torch.float32, settings).caches <= 1.4 * real


def keep_run(batches: list):
    def run(self):
        batches.append(self)
        return super(type(self), self).run()

    return run


def test_the_largest_batch_is_the_largest_that_fits(tiny):
    need = estimate(tiny.core.config, torch.float32, Settings())
    free = int(need.of(37) / (1 - memory.RESERVED)) + 1
    assert need.largest_batch(free, 1000) == 37 and need.largest_batch(free, 5) == 5
    assert need.fits(37, free) and not need.fits(38, free)
    assert need.largest_batch(need.weights, 1000) == 0


# -------------------------------------------------------------------------------------------- commands


def generate(folder: Path, *options: str) -> int:
    argv = ["generate", "a ring", "--model", str(folder), "--rounds", "1", "--out", "o", "--overwrite"]
    return main([*argv, *options])


def test_a_batch_that_does_not_fit_is_lowered_and_said(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    need = estimate(*describe(str(tiny_folder)), Settings(rounds=1), caption=len("a ring"))
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(need.of(3) / (1 - memory.RESERVED)) + 1)
    sizes = []
    opened = Decoder.open
    monkeypatch.setattr(Decoder, "open", lambda self, rows, *a: sizes.append(len(rows)) or opened(self, rows, *a))
    assert generate(tiny_folder, "--samples", "5") == 0
    assert sizes == [3, 2] and "3 chains at once, not 5" in capsys.readouterr().err
    assert generate(tiny_folder, "--samples", "5", "--max-batch", "auto") == 0
    assert sizes[2:] == [3, 2] and "at once" not in capsys.readouterr().err


def test_a_model_that_does_not_fit_is_not_loaded(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1_000_000)
    monkeypatch.setattr("janus_r1.model.loading.load", lambda *a: pytest.fail("loaded all the same"))
    assert generate(tiny_folder) == 2
    assert "does not fit" in capsys.readouterr().err and not Path("o").exists()


def test_judging_in_batches_changes_nothing(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for i, colour in enumerate(("red", "blue", "green")):
        Image.new("RGB", (64, 64), colour).save(f"{i}.png")
    answers = []
    for most in ("auto", "2"):
        argv = ["judge", "0.png", "1.png", "2.png", "--text", "a ring", "--text-temperature", "1"]
        assert main([*argv, "--model", str(tiny_folder), "--max-batch", most, "--json"]) == 0
        answers.append(json.loads(capsys.readouterr().out)["verdicts"])
    assert [v["verdict"] for v in answers[0]] == [v["verdict"] for v in answers[1]]


@pytest.mark.parametrize("where", ["cuda", "cpu"])
def test_running_out_of_memory_is_one_line(where, tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def draw(*args, **kwargs):
        if where == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB\nmore")
        return torch.empty(2**60, dtype=torch.uint8)

    monkeypatch.setattr(Decoder, "draw", draw)
    assert generate(tiny_folder, "--samples", "8") == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("with --max-batch 8: pass --max-batch 4")


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shape"), memory_errors(4, "cpu"):
        raise RuntimeError("shape mismatch")


@pytest.mark.parametrize("given", ["0", "many"])
def test_a_batch_that_means_nothing(given, capsys):
    assert main(["generate", "x", "--max-batch", given]) == 2
    assert "--max-batch" in capsys.readouterr().err


PEAK = """
import sys, torch
from pathlib import Path
from janus_r1.chain import Settings, Task
from janus_r1.introspect import introspect
from janus_r1.model.janus import Janus
from janus_r1.model.loading import load
from janus_r1.engine.memory import estimate

def status(name):
    return int(next(l for l in open("/proc/self/status") if l.startswith(name)).split()[1]) * 1024

model = load(sys.argv[1])
settings = Settings(rounds=2, guidance=3.0, early_stop=False, max_reason_tokens=8)
introspect(model, [Task("a ring")], settings)
baseline, batch = status("VmRSS"), 16
Path("/proc/self/clear_refs").write_text("5")
introspect(model, [Task("red " * 190)] * batch, settings, max_batch=batch)
need = estimate(model.core.config, torch.float32, settings)
print((status("VmHWM") - baseline) / (need.of(batch) - need.weights))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's own count")
def test_a_real_batch_stays_below_its_estimate():
    """Resident memory of a whole batch of the embedded model, prompts at their longest."""
    command = [sys.executable, "-c", PEAK, "tiny-base"]
    # The kernel's count is of whole pages that it lent, at times more than were asked for: the least of three is ours.
    runs = [subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(3)]
    share = min(float(run.stdout) for run in runs)
    print(f"a batch took {share:.2f} of its estimate")
    assert 0.5 < share < 1.15
