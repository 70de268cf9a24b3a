"""Intervals over seeds by hand and by simulation, and the page of a study from results as they lie on disk."""

from __future__ import annotations

import numpy as np
import pytest
from studies.study import (
    against,
    main,
    over_prompts,
    over_seeds,
    prompt_interval,
    read_study,
    seed_interval,
)

from janus_r1.errors import UserError
from janus_r1.files import write_json


def test_interval_of_three_seeds_by_hand():
    figure = seed_interval([0.5, 0.6, 0.7])
    # standard deviation 0.1, so the mean's error is 0.1 / sqrt(3); t = 4.302653 at two degrees of freedom
    assert figure["mean"] == pytest.approx(0.6) and figure["n"] == 3
    assert figure["high"] - figure["mean"] == pytest.approx(4.302653 * 0.1 / 3**0.5)
    assert figure["mean"] - figure["low"] == pytest.approx(figure["high"] - figure["mean"])
    assert seed_interval([0.5]) is None
    with pytest.raises(ValueError, match="need numbers"):
        seed_interval([0.5, float("nan")])


def test_the_interval_covers_the_truth_with_as_few_as_three_seeds():
    rng = np.random.default_rng(0)
    figures = [seed_interval(rng.normal(0.6, 0.05, 3)) for _ in range(4000)]
    assert np.mean([f["low"] <= 0.6 <= f["high"] for f in figures]) == pytest.approx(0.95, abs=0.01)


def test_the_interval_over_prompts_does_not_narrow_with_seeds():
    one = {"mean": 0.5, "low": 0.4, "high": 0.7, "n": 40}
    other = {"mean": 0.7, "low": 0.6, "high": 0.8, "n": 40}
    assert prompt_interval([one] * 3) == pytest.approx(one | {"n": 120})
    assert prompt_interval([one, other]) == pytest.approx({"mean": 0.6, "low": 0.5, "high": 0.75, "n": 80})


# ------------------------------------------------------------------------------------------- pages


def figure(mean: float) -> dict:
    return {"mean": mean, "low": mean - 0.02, "high": mean + 0.03, "n": 2212}


def result(
    first: float, final: float, seconds: float | None = 100.0, steps: int = 50, limits=("1", "4"), **run
) -> dict:
    """What ``eval world`` writes, as far as a study reads it."""
    rounds = {limit: {"overall": figure(final), "gain": figure(final - first)} for limit in limits}
    rounds[limits[0]] = {"overall": figure(first), "gain": None}
    record = {"benchmark": "world", "split": "test", "samples": 4, "limit": None, "prompts": 553, "rounds": [1, 4]}
    training = None if seconds is None else {"recipe": {}, "steps": steps, "seconds": seconds}
    return {
        "run": record | {"training": training} | run,
        "rounds": rounds,
        "verdict": {"balanced_accuracy": figure(0.9), "auroc": None},
        "introspection": {"fixed": figure(0.1), "broken": figure(0.05), "rounds_used": figure(1.5)},
    }


def edits(first: float, final: float, **run) -> dict:
    """What ``eval edit`` writes, as far as a study reads it."""
    made = result(first, final, benchmark="edit", cases=300, **run)
    del made["run"]["prompts"], made["introspection"]["rounds_used"]
    for report in made["rounds"].values():
        report |= {"both": report.pop("overall"), "preserving": figure(0.8)}
        report["following"] = figure(report["both"]["mean"] + 0.05)
    return made


def write(folder, **results) -> list[str]:
    """``default_0=...`` becomes default-0.json."""
    paths = [folder / f"{'-'.join(name.rsplit('_', 1))}.json" for name in results]
    for path, value in zip(paths, results.values(), strict=True):
        write_json(path, value)
    return [str(path) for path in paths]


def row(grid, name: str) -> dict[str, str]:
    (found,) = (row for row in grid.rows[1:] if row[0] == name)
    return dict(zip(grid.rows[0], found, strict=True))


def test_tables_of_a_study_by_hand(tmp_path):
    paths = write(
        tmp_path,
        default_0=result(0.50, 0.60, 90.0),
        default_1=result(0.52, 0.70, 110.0),
        other_0=result(0.51, 0.65),
        other_1=result(0.53, 0.75),
        alone_0=result(0.40, 0.40, None),
    )
    study = read_study(paths)
    assert [(v.name, sorted(v.seeds)) for v in study] == [("default", [0, 1]), ("other", [0, 1]), ("alone", [0])]
    default = row(over_seeds(study), "default")
    assert default["after introspection"] == f"0.650 [{0.65 - 12.706205 * 0.05:.3f}, {0.65 + 12.706205 * 0.05:.3f}]"
    assert default["training, s"].startswith("100 [") and default["steps"] == "50"
    assert row(over_seeds(study), "alone")["first draft"] == "0.400"
    assert row(over_seeds(study), "alone")["training, s"] == "n/a"
    prompts = row(over_prompts(study), "default")
    assert prompts["gain"] == "0.140 [0.120, 0.170]" and prompts["AUROC"] == "n/a"
    # paired by seed the difference is the same 0.05 twice, whatever the seeds do to both
    assert row(against(study[0], study), "other")["after introspection"] == "0.050 [0.050, 0.050]"


def test_the_page_names_its_intervals(tmp_path, capsys):
    folder = tmp_path / "ablations"
    main([*write(folder, default_0=result(0.5, 0.6), default_1=result(0.5, 0.7)), "--baseline", "default"])
    page = capsys.readouterr().out
    assert page.startswith("# Ablations\n") and "553 prompts (test) x 4 samples" in page
    assert (
        "Student's (t = 12.71 for 2)" in page
        and "after up to 4 rounds" in page
        and "Minus default, paired by seed" in page
    )


def test_a_study_of_one_round_shows_no_introspection(tmp_path, capsys):
    main(write(tmp_path, a_0=result(0.1, 0.1, limits=("1",))))
    page = capsys.readouterr().out
    assert "first draft" in page and "gain" not in page and "introspection" not in page


def test_a_study_of_edits(tmp_path, capsys):
    paths = write(tmp_path / "edits", sft_0=edits(0.5, 0.6), rl_0=edits(0.7, 0.9))
    shown = row(over_seeds(read_study(paths)), "rl")
    assert [shown[name] for name in ("first edit", "after introspection", "following")] == ["0.700", "0.900", "0.750"]
    main([*paths, "--baseline", "sft", "--baseline", "rl"])
    page = capsys.readouterr().out
    assert "Minus sft, paired" in page and "Minus rl, paired" in page
    assert "300 cases (test)" in page and "Intervals over cases" in page and "prompts" not in page
    with pytest.raises(UserError, match="measured with other benchmark"):
        read_study([*paths, *write(tmp_path, a_0=result(0.5, 0.6))])


def test_ten_rounds_come_after_two(tmp_path):
    (variant,) = read_study(write(tmp_path, a_0=result(0.1, 0.9, limits=("2", "10"))))
    variant.seeds[0]["rounds"] = dict(sorted(variant.seeds[0]["rounds"].items()))
    assert list(variant.seeds[0]["rounds"]) == ["10", "2"]
    shown = row(over_seeds([variant]), "a")
    assert shown["first draft"] == "0.100" and shown["after introspection"] == "0.900"


@pytest.mark.parametrize(
    ("results", "complaint"),
    [
        ({"default": result(0.5, 0.6)}, "not named VARIANT-SEED.json"),
        ({"a_0": {"run": {"benchmark": "judge"}}}, "not a result of janus-r1 eval world or edit"),
        ({"a_0": result(0.5, 0.6), "b_0": result(0.5, 0.6, split="dense")}, "measured with other split"),
        ({"a_0": result(0.5, 0.6), "a_1": result(0.5, 0.6, steps=99)}, "seeds of a were trained"),
    ],
)
def test_results_that_must_not_be_compared_are_refused(tmp_path, results, complaint):
    with pytest.raises(UserError, match=complaint):
        read_study(write(tmp_path, **results))


def test_a_missing_baseline_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main([*write(tmp_path, a_0=result(0.5, 0.6)), "--baseline", "b"])
    assert end.value.code == 2 and "no results of the baseline b" in capsys.readouterr().err
