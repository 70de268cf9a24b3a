"""Worlds by name: the package's own, a file, a module; what is wrong with one is told in one line."""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path

import numpy as np
import pytest

from janus_r1.chain import Chain, Round, Settings, Task, Verdict
from janus_r1.cli import main
from janus_r1.data.build import BuildRecipe, build
from janus_r1.data.candidates import CandidateSet
from janus_r1.errors import UserError
from janus_r1.eval.world import EvalOptions, evaluate_world
from janus_r1.files import locked
from janus_r1.worlds.base import CannotCheck, Check, Claim, World, WorldTask, claims, world
from janus_r1.worlds.shapes.world import Shapes

PAGE = Path(__file__).parent.parent / "docs" / "worlds.md"
RED = np.zeros((64, 64, 3), dtype=np.uint8)
RED[..., 0] = 200


@pytest.fixture
def plain(tmp_path) -> str:
    """The world that docs/worlds.md shows."""
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert code
    (tmp_path / "plain.py").write_text(code[1])
    return str(tmp_path / "plain.py")


def test_the_worlds_of_the_package_and_of_a_module():
    assert isinstance(world("shapes"), Shapes) and world("shapes") is world("shapes")
    assert isinstance(world("janus_r1.worlds.shapes.world:Shapes"), Shapes)


def test_the_world_of_the_docs_poses_and_checks(plain):
    tasks = list(itertools.islice(world(plain).stream(random.Random(0)), 20))
    assert {task.prompt for task in tasks} == {"a red picture", "a green picture", "a blue picture"}
    assert world(plain).check(Task("a red picture"), RED).verdict == "Yes, the image matches the prompt."
    wrong = world(plain).check(Task("a blue picture"), RED)
    assert wrong.verdict == "No, the picture is not blue." and wrong.score == 0.0


def test_candidates_are_built_in_it(plain, tiny_folder, tmp_path):
    sizes = {"prompts": 3, "part": 2, "temperatures": [1.0], "renderings": 0, "near_misses": 0}
    out = build(BuildRecipe(out=str(tmp_path / "out"), world=plain, model=str(tiny_folder), **sizes))
    found = list(CandidateSet(out))
    assert [c.prompt_id for c in found] == [0, 1, 2] and all(c.prompt.endswith("picture") for c in found)
    for candidate in found:
        assert candidate.reason.startswith("Yes") == (candidate.p_yes == 1.0)
    with pytest.raises(UserError, match="plain cannot render"):
        build(BuildRecipe(out=str(tmp_path / "o"), world=plain, model=str(tiny_folder), **sizes | {"renderings": 1}))


def test_a_world_with_a_split_is_measured():
    class Reds(World):
        name = "reds"

        def splits(self, kind="draw"):
            return ("all",) if kind == "draw" else ()

        def tasks(self, split_name, kind="draw"):
            return [WorldTask(f"a {word} picture", family=word) for word in ("red", "blue")]

        def check(self, task, image):
            return Check((Claim("red" in task.prompt, "it is red"),))

        def observations(self, tasks, chains):
            seen = [(row, float("red" in task.prompt)) for row, task in enumerate(tasks[:3])]
            return {"seen": {"red": seen, "nothing": []}}

    def sample(tasks, settings):
        verdict = Verdict(True, "Yes", 0.8)
        return [Chain(task.prompt, (Round((0,), RED, verdict),), 0, settings) for task in tasks]

    options = EvalOptions(world="reds", split="all", rounds=(1,), samples=2, controls=False, settings=Settings())
    result = evaluate_world(sample, options, Reds())
    assert result["rounds"]["1"]["overall"]["mean"] == 0.5
    assert {name: f["mean"] for name, f in result["rounds"]["1"]["families"].items()} == {"red": 1.0, "blue": 0.0}
    assert result["seen"]["red"]["mean"] == pytest.approx(2 / 3) and result["seen"]["nothing"] is None
    with pytest.raises(UserError, match="unknown split 'test'; choose all"):
        evaluate_world(sample, EvalOptions(rounds=(1,)), Reds())
    with pytest.raises(UserError, match="reds has none to edit"):
        evaluate_world(sample, EvalOptions(kind="edit", rounds=(1,)), Reds())


@pytest.mark.parametrize(
    ("name", "code", "complaint"),
    [
        ("nowhere", None, "no world 'nowhere': name shapes"),
        ("base", None, "no world 'base'"),
        ("missing.py", None, "no such file"),
        ("broken.py", "1 +", "broken.py cannot be imported: SyntaxError"),
        ("failing.py", "raise RuntimeError('out of paint')", "RuntimeError: out of paint"),
        ("empty.py", "", "must have one subclass of .*World, not 0"),
        ("no.such.module:World", None, "no.such.module cannot be imported: ModuleNotFoundError"),
        ("json:dumps", None, "json:dumps is no janus_r1.worlds.base.World"),
    ],
)
def test_what_is_no_world_is_one_line(tmp_path, name, code, complaint):
    path = tmp_path / name
    if code is not None:
        path.write_text(code)
    with pytest.raises(UserError, match=complaint):
        world(str(path) if name.endswith(".py") else name)


def test_the_command_line_takes_a_world(plain, capsys):
    assert main(["data", "splits", "--world", plain, "--json"]) == 0
    assert '"plain"' in capsys.readouterr().out
    assert main(["eval", "world", "--world", plain]) == 2
    assert "the world plain has none to draw" in capsys.readouterr().err


def test_a_check_counts_claims_and_keeps_following_apart_from_preserving():
    kept = Check(claims(4, ["the star has vanished"]), "everything else is unchanged")
    edit = Check(claims(2, []), "all well", kept)
    assert edit.following.correct and not edit.correct and edit.verdict == "No, the star has vanished."
    assert edit.score == 1.0 and kept.score == pytest.approx(0.49 * 3 / 4) and kept.facts == 4
    assert claims(1, ["a", "b"]) == (Claim(False, "a"), Claim(False, "b"))
    assert Check(claims(3, [])).reason == "the image matches the prompt"


def test_the_tiny_world_says_what_it_cannot_check():
    shapes = Shapes()
    for task, image, why in (
        (Task("a dog"), RED, "not in the world's language: 'a dog'"),
        (Task("a red circle"), RED[:32], "the world's images are 64x64"),
        (Task("make the star blue", RED), RED, "the edit does not fit its source"),
        (Task("sing", RED), RED, "not in the world's language: 'sing'"),
    ):
        with pytest.raises(CannotCheck, match=re.escape(why)):
            shapes.check(task, image)
    assert shapes.check(Task("a red circle"), RED).facts == 3


def test_a_stage_of_the_tiny_world_runs_from_the_command_line(tmp_path, capsys):
    """And holds its folder but once."""
    out = tmp_path / "vq"
    sizes = ["--batch", "2", "--codes", "16", "--continuous_steps", "1"]
    run = ["--run.out", str(out), "--run.steps", "2", "--run.threads", "1", "--run.precision", "no"]
    assert main(["train", "vq", *run, *sizes, "--json"]) == 0, capsys.readouterr().err
    assert (out / "vq" / "config.json").is_file()
    with locked(out):
        assert main(["train", "vq", *run, *sizes, "--resume"]) == 2
    assert "is in use by another janus-r1 process" in capsys.readouterr().err
