"""The audit of a judge on scripted drafts, every share worked out by hand; kinds of mistakes; the command."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from studies.audit import KINDS, audit, examples, failure_kind, main, page

from janus_r1.chain import Chain, Round, Settings, Verdict
from janus_r1.eval.protocol import choose_tasks
from janus_r1.eval.world import EvalOptions
from janus_r1.sheet import sheet, side_by_side
from janus_r1.worlds.shapes.language import parse
from janus_r1.worlds.shapes.prompts import alterations, train_prompts
from janus_r1.worlds.shapes.scene import Scene, SceneObject, render, sample_scene
from janus_r1.worlds.shapes.verifier import verify
from janus_r1.worlds.shapes.world import Shapes

EMPTY = render(Scene("black", ()))


def seen(text: str, *things: tuple[str, str, str, int, int]) -> str:
    """What the verifier objects to in a scene."""
    description = parse(text)
    assert description is not None
    return verify(render(Scene("black", tuple(SceneObject(*thing) for thing in things))), description).reason


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("missing", seen("a red circle")),
        ("surplus", seen("a red circle", ("circle", "red", "small", 4, 4), ("ring", "blue", "small", 40, 40))),
        ("shape", seen("a red circle", ("square", "red", "small", 4, 4))),
        ("colour", seen("a red circle", ("circle", "green", "small", 4, 4))),
        ("size", seen("a large red circle", ("circle", "red", "small", 4, 4))),
        (
            "place",
            seen(
                "a red circle left of a blue square",
                ("circle", "red", "small", 40, 24),
                ("square", "blue", "small", 4, 24),
            ),
        ),
        ("missing", "there is no red circle"),
        ("other", "the picture is nice"),
        ("other", "the image matches the prompt"),
    ],
)
def test_kinds_of_reasons(kind, why):
    assert failure_kind(why) == kind


def test_every_reason_of_the_verifier_has_a_kind():
    rng, kinds = random.Random(0), set()
    for prompt in itertools.islice(train_prompts(rng), 60):
        for changed in alterations(prompt, rng).values():
            found = verify(render(sample_scene(changed, rng, allow_held_out=True)), prompt.description)
            kinds |= {failure_kind(why) for why in found.failed}
    assert kinds == set(KINDS)


# ------------------------------------------------------------------------------------------ shares

OPTIONS = EvalOptions(limit=6, samples=4, settings=Settings(rounds=3), model="scripted")
CLAIM = "No, the ring is red, not blue."
# Of every prompt four drafts: (right, what the model says). One error of each sort, one draft judged truly of each.
SCRIPT = [
    (True, "Yes, it does."),
    (True, CLAIM),
    (False, "Yes, it does."),
    (False, "No, there are 0 objects instead of 1."),
]


def chosen(limit=OPTIONS.limit) -> list:
    return choose_tasks(Shapes(), "test", limit)


def scripted(tasks: list, settings: Settings) -> list[Chain]:
    assert settings.rounds == 1, "only first drafts are judged"
    chains = []
    for row, task in enumerate(tasks):
        right, said = SCRIPT[row % len(SCRIPT)]
        pixels = render(sample_scene(task.description, random.Random(0), allow_held_out=True)) if right else EMPTY
        verdict = Verdict(said.startswith("Yes"), said, 0.5)
        chains.append(Chain(task.prompt, (Round((0,), pixels, verdict),), 0, settings, row))
    return chains


@pytest.fixture(scope="module")
def audited():
    return audit(scripted, OPTIONS)


def test_shares_by_hand(audited):
    result, _ = audited
    wrong, right = result["accepted_wrong"], result["rejected_right"]
    assert result["right"]["mean"] == 0.5 and result["right"]["n"] == 24
    assert wrong["of_wrong"]["mean"] == 0.5 and wrong["of_wrong"]["n"] == 12
    assert right["of_right"]["mean"] == 0.5 and right["of_right"]["n"] == 12
    assert len(wrong["families"]) == 6 and all(f["mean"] == 0.5 and f["n"] == 2 for f in wrong["families"].values())
    assert {kind: figure["mean"] for kind, figure in wrong["kinds"].items()} == {"missing": 0.5}, "nothing was drawn"
    assert right["claims"]["colour"]["mean"] == 1.0 and right["claims"]["place"]["mean"] == 0.0
    single = [len(prompt.description.slots) == 1 for prompt in chosen()]
    assert result["rejected_wrong"]["explained"]["mean"] == pytest.approx(sum(single) / 6) and 0 < sum(single) < 6
    assert json.loads(json.dumps(result, allow_nan=False))["run"]["benchmark"] == "audit"


def test_a_judge_without_right_drafts_has_no_share_of_them():
    def only_wrong(tasks, settings):
        return [Chain(t.prompt, (Round((0,), EMPTY, Verdict(False, "No.", 0.1)),), 0, settings) for t in tasks]

    result, drafts = audit(only_wrong, OPTIONS)
    assert result["rejected_right"]["of_right"] is None and result["rejected_right"]["claims"]["shape"] is None
    assert result["accepted_wrong"]["of_wrong"]["mean"] == 0 and not examples(drafts, "accepted_wrong")
    assert "none" in page([result])


def test_examples_take_kinds_in_turn_and_say_what_is_true(audited):
    _, drafts = audited
    wrong, right = examples(drafts, "accepted_wrong", most=4), examples(drafts, "rejected_right")
    assert len(wrong) == 4 and len(right) == 6
    assert all(chain.accepted and "| verifier: there are 0 objects instead of" in chain.prompt for chain in wrong)
    assert all(c.rounds[0].verdict.reason == "the ring is red, not blue" for c in right)
    kinds = ["shape"] * 3 + ["colour"] * 2
    mixed = [d for d in drafts if d.error == "accepted_wrong"][: len(kinds)]
    whys = {"shape": "there is a red ring instead of a red star", "colour": "the ring is red, not blue"}
    mixed = [
        type(d)(d.chain, d.prompt, d.family, whys[kind], (whys[kind],)) for d, kind in zip(mixed, kinds, strict=True)
    ]
    shown = [chain.prompt.partition("verifier: ")[2] for chain in examples(mixed, "accepted_wrong", most=4)]
    assert shown == [whys[kind] for kind in ("shape", "colour", "shape", "colour")]


def test_sheets_stand_beside_each_other():
    chains = scripted(chosen(4), Settings(rounds=1))
    alone = sheet(chains[:1])
    assert side_by_side(chains[:3]).size == pytest.approx((3 * alone.width, alone.height), abs=60)
    assert side_by_side(chains[:1]).size == alone.size
    assert side_by_side(chains).height > 1.7 * alone.height
    two = np.asarray(side_by_side(chains[:2]))
    assert (two[:, alone.width :][: sheet(chains[1:2]).height] == np.asarray(sheet(chains[1:2]))).all()


# --------------------------------------------------------------------------------------- the command


def test_an_audit_writes_a_folder_and_compares(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["run", "--model", str(tiny_folder), "--limit", "6", "--samples", "2"]
    main([*command, "--out", "before"])
    assert "wrong ones that were accepted" in capsys.readouterr().out
    result = json.loads(Path("before/audit.json").read_text())
    assert result["run"]["samples"] == 2
    for error, share in (("accepted_wrong", "of_wrong"), ("rejected_right", "of_right")):
        figure = result[error][share]
        assert Path("before", f"{error}.png").exists() == bool(figure and figure["mean"])
    Image.open("before/accepted_wrong.png").verify()
    Path("mine").mkdir()
    with pytest.raises(SystemExit) as end:
        main([*command, "--out", "mine"])
    assert end.value.code == 2 and "was not written by this script" in capsys.readouterr().err
    main(["page", "before/audit.json", "before/audit.json"])
    page = capsys.readouterr().out
    assert f"|  | {tiny_folder} | {tiny_folder} |" in page and page.startswith("# Where the judge errs")


def test_comparing_something_else_is_one_line(tmp_path, capsys):
    (tmp_path / "x.json").write_text('{"run": {"benchmark": "world"}}')
    with pytest.raises(SystemExit) as end:
        main(["page", str(tmp_path / "x.json")])
    assert end.value.code == 2 and "is not a result of janus-r1 eval audit" in capsys.readouterr().err
