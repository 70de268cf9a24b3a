"""The recipes of the real models, run for two steps on a shrunken model of the same layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from janus_r1.data.candidates import Candidate, write_part
from janus_r1.data.importing import import_data
from janus_r1.model.loading import load, save
from janus_r1.recipe import load_recipe
from janus_r1.train.loop import lr_share
from janus_r1.train.rl import rl
from janus_r1.train.rl_recipe import RlRecipe
from janus_r1.train.sft import SftRecipe, sft

RECIPES = Path(__file__).parent.parent / "src" / "janus_r1" / "recipes" / "janus-pro"
SHORT = ["--run.steps", "2", "--run.save_every", "2", "--run.threads", "1", "--run.workers", "0"]


def metrics(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("path", sorted(RECIPES.glob("rl-*.yaml")), ids=lambda path: path.stem)
def test_reinforcement_learning(path, tiny, tiny_folder, tmp_path):
    if "repair" in path.stem:
        tiny.format, tiny_folder = "repair", tmp_path / "repairing"
        save(tiny, tiny_folder)
    smaller = ["--prompts_per_step", "2", "--group", "2", "--max_reason_tokens", "5", "--eval_every", "0"]
    ours = ["--model", str(tiny_folder), "--prompts", "world", "--rewards", "[{kind: world}]"]
    recipe = load_recipe(RlRecipe, path, [*SHORT, *smaller, *ours, "--run.out", str(tmp_path)])
    rl(recipe)
    rows = metrics(tmp_path)
    assert len(rows) == 2 and all(row["kl_image"] < 1 and row["gap_image"] < 0.5 for row in rows)
    assert (tmp_path / "model" / "config.json").exists()
    assert (tmp_path / "adapter" / "adapter_config.json").exists() == bool(recipe.lora.rank)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("sft-*.yaml")), ids=lambda path: path.stem)
def test_supervised_finetuning(path, tiny_folder, tmp_path):
    if path.stem.endswith("repair"):
        ours = ["--data", str(reflections(tmp_path))]
    else:
        import_data(candidates(tmp_path / "made"), tmp_path / "store")
        ours = ["--data", str(tmp_path / "store")]
    ours += ["--model", str(tiny_folder), "--rows", "12", "--micro_batch", "4"]
    sft(load_recipe(SftRecipe, path, [*SHORT, *ours, "--run.out", str(tmp_path / "run")]))
    assert [row["image_loss"] > 0 for row in metrics(tmp_path / "run")] == [True, True]
    assert load(str(tmp_path / "run" / "model")).format == ("repair" if path.stem.endswith("repair") else "paper")


def candidates(folder: Path) -> Path:
    scored = [
        Candidate(prompt, f"prompt {prompt}", tuple(range(64)), p, "Yes, it is." if p > 0.5 else "No, it is not.", "")
        for prompt in range(3)
        for p in (1.0, 0.3, 0.1)
    ]
    write_part(folder / "part_00000", scored, np.zeros((len(scored), 64, 64, 3), np.uint8))
    return folder


def reflections(folder: Path) -> Path:
    """A wrong and a right picture of a prompt, and an edit, as a store."""
    source = folder / "source"
    source.mkdir()
    for name in ("wrong", "right"):
        Image.fromarray(np.full((64, 64, 3), len(name), np.uint8)).save(source / f"{name}.png")
    pair = {"prompt": "a cat", "wrong": "wrong.png", "right": "right.png", "reason": "No, make it a cat."}
    edit = {"instruction": "make it a cat", "source": "wrong.png", "target": "right.png"}
    (source / "rows.jsonl").write_text(json.dumps(pair) + "\n" + json.dumps(edit) + "\n")
    import_data(source, folder / "store")
    return folder / "store"


def test_the_learning_rate_is_the_papers():
    """Table 5: to 6e-6 in 100 steps, 2e-6 at step 400, 2e-7 at the end; 2e-5 to 2e-7 over 50,000 steps."""
    learning = load_recipe(RlRecipe, RECIPES / "rl-7b-full.yaml")
    rates = [learning.lr * lr_share(step, learning.run) for step in (0, 99, 250, 400, 1699, 2999)]
    assert rates == pytest.approx([6e-8, 6e-6, 4e-6, 2e-6, 1.1e-6, 2e-7], rel=0.01)
    finetuning = load_recipe(SftRecipe, RECIPES / "sft-7b.yaml")
    rates = [finetuning.lr * lr_share(step, finetuning.run) for step in (499, 999, 25_499, 49_999)]
    assert rates == pytest.approx([1e-5, 2e-5, 1.01e-5, 2e-7], rel=0.01)
