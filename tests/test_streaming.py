"""Loading DeepSeek's layout needs the memory of one copy of the weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from janus_r1.model.janus import Janus
from janus_r1.model.presets import random_model
from janus_r1.worlds.shapes.training.model import tiny_config
from originals import write_original

MEASURE = """
import sys, threading, time
from pathlib import Path
from janus_r1.model.loading import load

def resident():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1]) * 1024

load(sys.argv[2])  # what a first load imports and caches is no part of the answer
baseline, peak, running = resident(), 0, True
def watch():
    global peak
    while running:
        peak = max(peak, resident())
        time.sleep(0.001)
thread = threading.Thread(target=watch)
thread.start()
model = load(sys.argv[1])
running = False
thread.join()
print((peak - baseline) / sum(p.nbytes for p in model.core.parameters()))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own count")
@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_loading_needs_little_more_memory_than_the_weights(kind, words, tiny, tmp_path):
    config = tiny_config(len(words), num_embeddings=96, hidden=768, layers=7, intermediate=2048)
    big = Janus(random_model(config, 0), words)
    folder = write_original(big, tmp_path / "big", kind, shards=10)
    small = write_original(tiny, tmp_path / "small")
    command = [sys.executable, "-c", MEASURE, str(folder), str(small)]
    factor = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(f"{kind}: peak is {factor:.3f} x the weights")
    assert factor <= 1.15
