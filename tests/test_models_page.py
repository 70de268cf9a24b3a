"""docs/models.md says what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from janus_r1.chain import Settings
from janus_r1.engine.memory import estimate
from janus_r1.model.presets import preset_config
from janus_r1.worlds.shapes.training.model import tiny_config

PAGE = Path(__file__).parent.parent / "docs" / "models.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text(encoding="utf-8").partition("## Memory")[2].partition("## Speed")[0].splitlines()
    if line.startswith("| ") and not line.startswith(("| size", "| ---"))
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} {row[1]}")
def test_the_memory_table_is_what_the_estimate_says(row):
    size, dtype, weights, *needs, at_once = row
    config = tiny_config(700) if size == "tiny" else preset_config(size, 700)
    one = Settings(rounds=1, guidance=5.0)
    three = Settings(rounds=3, guidance=5.0, history="last")
    plans = [estimate(config, getattr(torch, dtype), settings, caption=60) for settings in (one, three)]
    assert float(weights) == pytest.approx(plans[0].weights / 1e9, abs=0.006)
    expected = [plan.of(batch) / 1e9 for plan in plans for batch in (1, 64)]
    assert [float(need) for need in needs] == pytest.approx(expected, rel=0.02, abs=0.05)
    fits = [plans[1].largest_batch(int(free * 1e9), 10_000) for free in (24, 80, 141)]
    assert [0 if n == "-" else int(n) for n in at_once.split(" / ")] == pytest.approx(fits, rel=0.01)
