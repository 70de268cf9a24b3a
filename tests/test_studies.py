"""The studies' scripts with stand-ins for the commands: what they would run, and that they go on after a kill."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest

from janus_r1.cli import parse
from janus_r1.recipe import load_recipe
from janus_r1.train.rl_recipe import RlRecipe, check
from janus_r1.train.sft import SftRecipe

ROOT = Path(__file__).parent.parent
STAND_IN = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path
arguments = sys.argv[1:]
log = Path("log.jsonl")
done = len(log.read_text().splitlines()) if log.exists() else 0
if done == int(os.environ.get("KILL_AFTER", "-1")):
    sys.exit(137)
with log.open("a") as file:
    file.write(json.dumps(arguments) + "\\n")
value = lambda name: Path(arguments[arguments.index(name) + 1])
if arguments[0] == "train":
    for folder in ("model", "checkpoints", "candidates"):
        (value("--run.out") / folder).mkdir(parents=True, exist_ok=True)
elif arguments[0] == "eval":
    value("--out").write_text("{{}}")
else:
    print("a page")
"""


@pytest.fixture
def root(tmp_path) -> Path:
    """A checkout with the recipes alone, where janus-r1 and python only write down how they were called."""
    shutil.copytree(ROOT / "studies", tmp_path / "studies")
    shutil.copytree(ROOT / "src/janus_r1/recipes", tmp_path / "src/janus_r1/recipes")
    for folder in ("docs", "bin"):
        (tmp_path / folder).mkdir()
    for name in ("janus-r1", "python"):
        (tmp_path / "bin" / name).write_text(STAND_IN)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def study(root: Path, name: str, **variables: str) -> int:
    path = f"{root / 'bin'}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "SEEDS": "0 1", "STEPS": "7"} | variables
    script = ["bash", str(root / "studies" / f"{name}.sh")]
    return subprocess.run(script, env=environment, cwd="/", capture_output=True, check=False).returncode


def calls(root: Path, command: str) -> list[list[str]]:
    rows = [json.loads(line) for line in (root / "log.jsonl").read_text().splitlines()]
    return [row for row in rows if row[0] == command]


def recipe_of(call: list[str]) -> RlRecipe | SftRecipe:
    """As the command line would read it."""
    return parse(call).keywords["recipe"]


def changed(recipe: RlRecipe | SftRecipe, plain: RlRecipe | SftRecipe) -> set[str]:
    names = {field.name for field in fields(plain)} - {"run", "eval_every", "keep_candidates"}
    return {name for name in names if getattr(recipe, name) != getattr(plain, name)}


def test_ablations_change_one_key_each(root, monkeypatch):
    monkeypatch.chdir(root)
    assert study(root, "ablations") == 0
    plain = load_recipe(RlRecipe, "shapes/rl")
    trained = {Path(r.run.out).name: r for call in calls(root, "train") if isinstance(r := recipe_of(call), RlRecipe)}
    keys = {name.rpartition("-")[0]: changed(recipe, plain) for name, recipe in trained.items()}
    assert keys.pop("default") == set()
    assert Counter(key for (key,) in keys.values()) == {
        "credit": 3,
        "judge_balanced": 1,
        "policy": 2,
        "rounds": 3,
        "judge_weight": 1,
        "draw_weight": 1,
        "model": 1,
    }
    for name, recipe in trained.items():
        check(recipe)
        assert recipe.run.steps == 7 and name.endswith(f"-{recipe.run.seed}")
    assert {trained[f"rounds-{limit}-0"].rounds for limit in (1, 2, 4)} == {1, 2, 4}
    results = sorted(path.stem for path in Path("results/ablations").iterdir())
    variants = [*keys, "default", "before", "rejection", "plain-sft-before"]
    assert results == sorted(f"{name}-{seed}" for name in variants for seed in (0, 1))
    assert Path("docs/ablations.md").read_text() == "a page\n"


def test_a_study_is_shared_among_processes_and_written_by_the_last(root, monkeypatch):
    monkeypatch.chdir(root)
    assert study(root, "ablations", VARIANTS="rounds-1 before", TRAIN="--compile false", DEVICE="cuda") == 0
    trained = [recipe_of(call) for call in calls(root, "train")]
    assert [r.run.out for r in trained] == [f"runs/tiny/ablations/rounds-1-{seed}" for seed in (0, 1)]
    assert not any(r.compile for r in trained)
    assert all(call[call.index("--device") + 1] == "cuda" for call in calls(root, "eval"))
    assert not Path("docs/ablations.md").exists()
    assert study(root, "ablations") == 0
    again = [recipe_of(call).run.out for call in calls(root, "train")]
    assert len(set(again)) == len(again) and Path("docs/ablations.md").exists()


def test_rejection_learns_from_the_default_runs_candidates(root, monkeypatch):
    monkeypatch.chdir(root)
    study(root, "ablations")
    *rejections, plain = [r for call in calls(root, "train") if isinstance(r := recipe_of(call), SftRecipe)]
    assert plain.shares == {"draw": 1.0} and plain.run.steps == load_recipe(SftRecipe, "shapes/sft").run.steps
    assert [r.candidates for r in rejections] == [[f"runs/tiny/ablations/default-{s}/candidates"] for s in (0, 1)]
    assert all(r.run.steps == 7 for r in rejections)
    kept = [r.run.out for call in calls(root, "train") if getattr(r := recipe_of(call), "keep_candidates", False)]
    assert kept == ["runs/tiny/ablations/default-0", "runs/tiny/ablations/default-1"]


def test_figure_5a_changes_the_reward_alone(root, monkeypatch):
    monkeypatch.chdir(root)
    assert study(root, "figure5a", BASE="base/model", R1="r1/model") == 0
    recipes = [recipe_of(call) for call in calls(root, "train")]
    for recipe in recipes:
        check(recipe)
        assert (recipe.model, recipe.rounds, recipe.judge_weight, recipe.draw_weight) == ("base/model", 1, 0, 1)
        assert len(changed(recipe, recipes[0]) - {"rewards"}) == 0
    rewards = [(r.rewards[0].kind, r.rewards[0].model) for r in recipes]
    assert rewards == [("janus", "base/model"), ("janus", "r1/model"), ("world", None)] * 2
    assert all(call[call.index("--rounds") + 1] == "1" for call in calls(root, "eval"))
    assert study(root, "figure5a", BASE="base/model", R1="r1/model", STEPS="9") == 0
    longer = [recipe_of(call).run for call in calls(root, "train")[len(recipes) :]]
    assert len(longer) == len(recipes) and {run.steps for run in longer} == {9}
    names = [f"judged-by-{judge}-{steps}" for judge in ("base", "r1", "verifier") for steps in (7, 9)]
    kept = sorted(path.stem for path in Path("results/figure5a").iterdir())
    assert kept == sorted(f"{name}-{seed}" for name in ("before", *names) for seed in (0, 1))


def test_editing_begins_twice_and_changes_one_key_each(root, monkeypatch):
    monkeypatch.chdir(root)
    assert study(root, "edits", BASE="base/model", EDITOR_MODEL="editor/model", SFT_STEPS="5") == 0
    trained = {Path((r := recipe_of(call)).run.out).name: r for call in calls(root, "train")}
    learnt = {name: r for name, r in trained.items() if isinstance(r, RlRecipe)}
    plain = learnt["rl-editor-1"]
    assert (plain.task, plain.rounds, plain.model) == ("edit", 1, "editor/model")
    assert plain.judge_threshold == 0.99  # or verdicts were paid for praising copies where one check is worth 0.67
    keys = {name: changed(recipe, plain) for name, recipe in learnt.items() if name.endswith("-1")}
    assert keys == {
        "rl-editor-1": set(),
        "rl-editor-paper-weights-1": {"rewards"},
        "rl-editor-official-weights-1": {"rewards"},
        "rl-from-r1-1": {"model"},
        "rl-from-r1-paper-weights-1": {"model", "rewards"},
        "rl-from-r1-official-weights-1": {"model", "rewards"},
        "rl-from-base-1": {"model"},
    }
    for recipe in learnt.values():
        check(recipe)
    weights = {name: (r.rewards[0].follow_weight, r.rewards[0].preserve_weight) for name, r in learnt.items()}
    for start in ("from-r1", "editor"):
        assert weights[f"rl-{start}-paper-weights-1"] == (0.5, 1.0)
        assert weights[f"rl-{start}-official-weights-1"] == (1.0, 0.25)
    assert learnt["rl-from-base-1"].model == "runs/tiny/edits/sft-from-base-1/model"
    ours, theirs = (trained[f"sft-from-{name}-0"] for name in ("r1", "base"))
    assert changed(ours, theirs) == {"model"} and (ours.run.steps, theirs.model) == (5, "base/model")
    assert {call[1] for call in calls(root, "eval")} == {"edit"} and len(calls(root, "eval")) == 20
    assert Path("docs/edits.md").read_text() == "a page\n"


def test_seeds_train_the_recipe_itself_and_measure_every_split(root, monkeypatch):
    monkeypatch.chdir(root)
    Path("runs/tiny/rl/model").mkdir(parents=True)  # seed 0, trained before
    assert study(root, "seeds", SEEDS="0 1 2", STEPS="300") == 0
    plain = load_recipe(RlRecipe, "shapes/rl")
    trained = [recipe_of(call) for call in calls(root, "train")]
    assert [(r.run.seed, r.run.steps) for r in trained] == [(1, plain.run.steps), (2, plain.run.steps)]
    assert all(changed(recipe, plain) == set() for recipe in trained)
    measured = {path.parent.name + "/" + path.stem for path in Path("results/seeds").glob("*/*.json")}
    splits, variants = ("test", "held_out", "dense"), ("sft", "r1")
    assert measured == {f"{split}/{name}-{seed}" for split in splits for name in variants for seed in (0, 1, 2)}
    assert Path("docs/seeds.md").read_text() == "a page\n" * 3


@pytest.mark.parametrize(("name", "pages"), [("ablations", 1), ("figure5a", 1), ("edits", 1), ("seeds", 3)])
def test_a_killed_study_goes_on_and_repeats_nothing(root, monkeypatch, name, pages):
    """Killed between training and measuring, it trains again (which --resume makes short) and measures."""
    monkeypatch.chdir(root)
    assert study(root, name, KILL_AFTER="6") == 137
    assert not Path("docs", f"{name}.md").exists()
    assert study(root, name) == 0
    assert all("--resume" in call for call in calls(root, "train"))
    outs = Counter(call[call.index("--out") + 1] for call in calls(root, "eval"))
    assert set(outs.values()) == {1}, "nothing is measured twice"
    before = len((root / "log.jsonl").read_text().splitlines())
    assert study(root, name) == 0
    assert len((root / "log.jsonl").read_text().splitlines()) == before + pages, "only the page is written again"


def test_only_logs_and_results_stay(root, monkeypatch):
    monkeypatch.chdir(root)
    study(root, "ablations", SEEDS="0")
    left = {path.name for path in Path("runs/tiny/ablations/default-0").iterdir()}
    assert not left & {"checkpoints", "model", "candidates"}
