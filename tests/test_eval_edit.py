"""The editing benchmark on scripted editors: every figure is known beforehand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from janus_r1.chain import Chain, Round, Settings, Verdict
from janus_r1.errors import UserError
from janus_r1.eval.report import markdown
from janus_r1.eval.world import MAX_PSNR, EvalOptions, evaluate_world
from janus_r1.worlds.shapes.edit_cases import FAMILIES, edit_split
from janus_r1.worlds.shapes.scene import Scene, render

CASES = edit_split("test")[:12]
TARGETS = {case.instruction.text: render(case.target) for case in CASES}
EMPTY = render(Scene("black", ()))
OPTIONS = EvalOptions(
    kind="edit", rounds=(1, 2), limit=12, samples=2, controls=False, settings=Settings(seed=3), model="scripted"
)


def draft(pixels: np.ndarray, p_yes: float) -> Round:
    return Round((0,) * 10, pixels, Verdict(p_yes >= 0.5, "", p_yes, ids=(0, 0)))


class Scripted:
    """Copies the source first and says No, then makes the edit and says Yes; draws nothing."""

    first, second = 0.2, 0.9

    def __call__(self, tasks, settings):
        if tasks[0].source is None:  # the baseline that draws from scratch
            return [Chain(task.prompt, (draft(EMPTY, 0.9),), 0, settings) for task in tasks]
        return self.edit(tasks, settings)

    def edit(self, tasks, settings):
        return [
            Chain(t.prompt, (draft(t.source, self.first), draft(TARGETS[t.prompt], self.second)), 1, settings)
            for t in tasks
        ]


def evaluate_edit(editor, options):
    return evaluate_world(editor, options, reconstruct=lambda images: images)


def means(report) -> tuple[float, ...]:
    return tuple(report[check]["mean"] for check in ("following", "preserving", "both"))


def test_rounds_baselines_and_verdicts():
    result = evaluate_edit(Scripted(), OPTIONS)
    assert means(result["rounds"]["1"]) == (0, 1, 0) and means(result["rounds"]["2"]) == (1, 1, 1)
    assert means(result) == (1, 1, 1) and result["both"]["n"] == 24
    assert set(result["rounds"]["2"]["families"]) == set(FAMILIES)
    assert result["rounds"]["2"]["gain"]["mean"] == 1 and result["rounds"]["1"]["gain"] is None
    assert result["rounds"]["1"]["tokens"]["mean"] == 12 and result["rounds"]["2"]["tokens"]["mean"] == 24
    base = result["baselines"]
    assert means(base["copy"]) == (0, 1, 0) and means(base["tokenizer"]) == (1, 1, 1)
    assert means(base["from_scratch"])[2] == 0 and base["from_scratch"]["psnr"]["mean"] < 40
    assert base["copy"]["psnr"]["mean"] == MAX_PSNR == result["rounds"]["2"]["psnr"]["mean"]
    assert base["copy"]["ssim"]["mean"] == pytest.approx(1)
    assert result["verdict"]["accuracy"]["mean"] == 1, "it said No to copies"
    assert result["introspection"]["fixed"]["mean"] == 1 and result["introspection"]["broken"]["mean"] == 0
    text = markdown(result)
    assert "two_step" in text and "copied" in text


def test_likeness_leaves_out_edits_whose_place_is_open():
    result = evaluate_edit(Scripted(), OPTIONS)
    placed = [c for c in CASES if all(e.kind in ("recolour", "replace", "remove") for e in c.instruction.edits)]
    assert 0 < len(placed) < len(CASES)
    assert result["rounds"]["2"]["psnr"]["n"] == 2 * len(placed)


def test_edits_of_one_step_have_a_figure_of_their_own():
    two = {case.instruction.text for case in CASES if case.instruction.family == "two_step"}

    class Halting(Scripted):
        """Two steps are too many for it."""

        def edit(self, tasks, settings):
            chains = super().edit(tasks, settings)
            return [
                replace(chain, rounds=(chain.rounds[0], draft(task.source, 0.9))) if chain.prompt in two else chain
                for chain, task in zip(chains, tasks, strict=True)
            ]

    result = evaluate_edit(Halting(), OPTIONS)
    assert means(result["rounds"]["2"]["one_step"]) == (1, 1, 1) and result["both"]["mean"] == pytest.approx(5 / 6)
    assert result["rounds"]["2"]["one_step"]["both"]["n"] == 20 and "| one step" in markdown(result)


def test_the_final_draft_may_be_the_best_one():
    class Unsure(Scripted):
        first, second = 0.45, 0.3

    options = replace(OPTIONS, settings=Settings(final="best"))
    assert means(evaluate_edit(Unsure(), options)) == (0, 1, 0)
    assert means(evaluate_edit(Unsure(), OPTIONS)) == (1, 1, 1)


def test_chains_without_a_score_are_counted_not_zero():
    class Broken(Scripted):
        def edit(self, tasks, settings):
            chains = super().edit(tasks, settings)
            return [replace(chains[0], rounds=(draft(EMPTY, float("nan")),)), *chains[1:]]

    result = evaluate_edit(Broken(), OPTIONS)
    assert result["failures"]["chains"] == 1 and "nan" in result["failures"]["examples"][0]
    assert means(result) == (1, 1, 1) and result["both"]["n"] == 23
    with pytest.raises(UserError, match="could be scored"):
        evaluate_edit(Broken(), replace(OPTIONS, limit=1, samples=1))


def test_an_editor_that_breaks_its_contract_is_refused():
    class Lazy(Scripted):
        def edit(self, tasks, settings):
            return super().edit(tasks, settings)[::-1]

    with pytest.raises(ValueError, match="in order"):
        evaluate_edit(Lazy(), OPTIONS)
    with pytest.raises(UserError, match="split"):
        evaluate_edit(Scripted(), replace(OPTIONS, split="dense"))
