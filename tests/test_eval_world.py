"""The benchmark on scripted chains: every figure is worked out by hand."""

import json
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from janus_r1.chain import Chain, Round, Settings, Verdict
from janus_r1.errors import UserError
from janus_r1.eval.protocol import choose_tasks
from janus_r1.eval.report import markdown, print_report
from janus_r1.eval.world import EvalOptions, evaluate_world
from janus_r1.worlds.shapes.prompts import GENEVAL_COUNTS, split
from janus_r1.worlds.shapes.scene import Scene, render, sample_scene
from janus_r1.worlds.shapes.verifier import verify
from janus_r1.worlds.shapes.world import Shapes

SHAPES = Shapes()
DESCRIPTIONS = {p.text: p.description for name in ("test", "dense", "held_out") for p in split(name)}
WRONG = render(Scene("black", ()))

# A draft is (right, p_yes); the model says Yes from 0.5. One chain for each of four samples.
CHAINS = [
    [(True, 0.9)],
    [(False, 0.2), (True, 0.8)],
    [(True, 0.4), (False, 0.3), (False, 0.1)],
    [(False, 0.2), (False, 0.3), (True, 0.7)],
]
# Independent drafts 2 and 3 of the same four samples.
SINGLES = [
    [(False, 0.95), (True, 0.1)],
    [(False, 0.6), (True, 0.7)],
    [(False, 0.3), (False, 0.2)],
    [(True, 0.3), (False, 0.1)],
]
OPTIONS = EvalOptions(rounds=(1, 2, 3), limit=6, settings=Settings(seed=5), model="scripted")


def draft(prompt: str, right: bool, p_yes: float) -> Round:
    """10 image tokens; a verdict of 2 tokens (Yes) or 5 (No and why)."""
    scene = sample_scene(DESCRIPTIONS[prompt], random.Random(0), allow_held_out=True) if right else None
    accepted = p_yes >= 0.5
    verdict = Verdict(accepted, "Yes" if accepted else "No", p_yes, ids=(0,) * (2 if accepted else 5))
    return Round((0,) * 10, render(scene) if scene else WRONG, verdict)


def chain(prompt: str, drafts, settings: Settings, row: int) -> Chain:
    rounds = tuple(draft(prompt, *item) for item in drafts[: settings.rounds])
    return Chain(prompt, rounds, len(rounds) - 1, settings, row)


class Scripted:
    """Plays CHAINS, or SINGLES when asked for one round a chain; remembers its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, tasks, settings):
        prompts = [task.prompt for task in tasks]
        self.calls.append((prompts, settings))
        singles = [[item] for sample in SINGLES for item in sample]
        scripts = singles if len(self.calls) > 1 else CHAINS
        return [chain(p, scripts[i % len(scripts)], settings, i) for i, p in enumerate(prompts)]


@pytest.fixture(scope="module")
def result():
    return evaluate_world(Scripted(), OPTIONS)


def mean(figure) -> float:
    assert figure["low"] <= figure["mean"] <= figure["high"]
    return figure["mean"]


def test_rounds_read_every_limit_off_the_same_chains(result):
    rounds = result["rounds"]
    assert [mean(rounds[t]["overall"]) for t in "123"] == pytest.approx([0.5, 0.5, 0.75])
    assert [mean(rounds[t]["gain"]) for t in "23"] == pytest.approx([0, 0.25]) and rounds["1"]["gain"] is None
    assert [mean(rounds[t]["tokens"]) for t in "123"] == pytest.approx([57 / 4, 99 / 4, 126 / 4])
    assert set(rounds["3"]["families"]) == set(GENEVAL_COUNTS)
    assert all(mean(f) == 0.75 and f["n"] == 4 for f in rounds["3"]["families"].values())
    assert rounds["3"]["overall"]["n"] == 24


def test_score_is_the_verifiers(result):
    wrong = [verify(WRONG, task.description).score for task in choose_tasks(SHAPES, "test", 6)]
    assert mean(result["rounds"]["3"]["score"]) == pytest.approx(0.75 + 0.25 * np.mean(wrong))


def test_introspection(result):
    seen = {name: mean(figure) for name, figure in result["introspection"].items()}
    assert seen == pytest.approx(
        {"triggered": 0.75, "fixed": 0.5, "broken": 0.25, "gain": 0.25, "rounds_used": 9 / 4, "tokens": 126 / 4}
    )


def test_verdict_on_first_and_on_all_drafts(result):
    verdict = result["verdict"]
    assert mean(verdict["accuracy"]) == 0.75  # the third sample rejects a right image
    assert mean(verdict["balanced_accuracy"]) == pytest.approx((0.5 + 1) / 2)
    assert mean(verdict["auroc"]) == 1.0
    assert mean(verdict["ece"]) == pytest.approx((0.1 + 2 * 0.2 + 0.6) / 4)
    assert mean(verdict["positive_rate"]) == 0.25 and mean(verdict["base_rate"]) == 0.5
    assert verdict["accuracy"]["n"] == 24 and verdict["all_drafts"]["accuracy"]["n"] == 54
    assert mean(verdict["all_drafts"]["accuracy"]) == pytest.approx(8 / 9)
    assert mean(verdict["balanced"]) == 0.75 and verdict["balanced"]["n"] == 24


def test_best_of_n_picks_by_p_yes(result):
    best = result["controls"]["best_of_n"]
    assert [mean(best[n]["overall"]) for n in "123"] == pytest.approx([0.5, 0.5, 0.75])
    assert [mean(best[n]["tokens"]) for n in "123"] == pytest.approx([11, 22, 33])
    assert [mean(best[n]["advantage"]) for n in "23"] == pytest.approx([0, 0]) and best["1"]["advantage"] is None


def test_best_of_n_at_equal_tokens_interpolates(result):
    equal = result["controls"]["best_of_n_equal_tokens"]
    n = 2 + (31.5 - 22) / 11
    assert equal["n"] == pytest.approx(n) and equal["tokens"] == pytest.approx(31.5) and equal["reached"]
    assert mean(equal["overall"]) == pytest.approx(0.5 + 0.25 * (n - 2))
    assert mean(equal["advantage"]) == pytest.approx(0.75 - mean(equal["overall"]))


def test_blind_redraw_stops_at_the_first_yes(result):
    blind = result["controls"]["blind_redraw"]
    assert [mean(blind[n]["overall"]) for n in "123"] == pytest.approx([0.5, 0.5, 0.25])
    assert [mean(blind[n]["tokens"]) for n in "123"] == pytest.approx([11, 77 / 4, 99 / 4])
    assert mean(blind["3"]["advantage"]) == pytest.approx(0.5)


def test_oracle_takes_any_right_draft(result):
    assert [mean(result["controls"]["oracle"][n]) for n in "123"] == pytest.approx([0.5, 0.75, 1.0])


def test_result_is_json_with_its_record(result):
    again = json.loads(json.dumps(result, allow_nan=False))
    assert again["run"]["model"] == "scripted" and again["run"]["settings"]["seed"] == 5
    assert again["run"]["prompts"] == 6 and again["run"]["settings"]["rounds"] == 3
    assert again["cost"]["images"] == 6 * 9 + 6 * 8 and again["cost"]["seconds"] > 0
    assert again["failures"] == {"drafts": 0, "chains": 0, "examples": []}


def test_control_drafts_have_their_own_random_numbers():
    sampler = Scripted()
    evaluate_world(sampler, OPTIONS)
    (prompts, settings), (extra, alone) = sampler.calls
    chosen = [task.prompt for task in choose_tasks(SHAPES, "test", 6)]
    assert Counter(prompts) == Counter(chosen * 4) and Counter(extra) == Counter(chosen * 8)
    assert settings.rounds == 3 and alone.rounds == 1 and alone.seed != settings.seed


def test_controls_can_be_switched_off():
    sampler = Scripted()
    result = evaluate_world(sampler, replace(OPTIONS, controls=False))
    assert result["controls"] is None and len(sampler.calls) == 1
    assert mean(result["rounds"]["3"]["overall"]) == 0.75


def test_one_round_needs_no_extra_drafts():
    sampler = Scripted()
    result = evaluate_world(sampler, replace(OPTIONS, rounds=(1,)))
    assert len(sampler.calls) == 1 and mean(result["introspection"]["rounds_used"]) == 1
    controls = result["controls"]
    assert mean(controls["best_of_n"]["1"]["overall"]) == mean(controls["oracle"]["1"]) == 0.5
    assert controls["best_of_n_equal_tokens"]["n"] == 1 and not controls["best_of_n_equal_tokens"]["reached"]
    assert "oracle of 1" not in markdown(result)


def test_final_best_takes_the_likeliest_round():
    options = replace(OPTIONS, settings=Settings(final="best"), controls=False)
    # The third sample's likeliest draft is its first, which is right: nothing breaks any more.
    result = evaluate_world(Scripted(), options)
    assert mean(result["rounds"]["3"]["overall"]) == 1.0 and mean(result["introspection"]["broken"]) == 0.0


def test_final_best_is_the_chains_own_choice():
    """Lists count before P(Yes): the first draft has one mark No, the second, which is likelier, has two."""

    def sample(tasks, settings):
        chains = []
        for i, task in enumerate(tasks):
            one, two = draft(task.prompt, True, 0.2), draft(task.prompt, False, 0.4)
            one = replace(one, verdict=replace(one.verdict, listing="a red ring No, two stars Yes"))
            two = replace(two, verdict=replace(two.verdict, listing="a red ring No, two stars No"))
            chains.append(Chain(task.prompt, (one, two), 0, settings, i))
        return chains

    options = EvalOptions(rounds=(1, 2), limit=6, settings=Settings(final="best"), controls=False)
    assert mean(evaluate_world(sample, options)["rounds"]["2"]["overall"]) == 1.0


def test_limit_keeps_families_balanced():
    def chosen(split_name, limit=None):
        return [task.prompt for task in choose_tasks(SHAPES, split_name, limit)]

    counts = Counter(task.family for task in choose_tasks(SHAPES, "test", 20))
    assert set(counts) == set(GENEVAL_COUNTS) and max(counts.values()) - min(counts.values()) == 1
    assert chosen("test", 20) == chosen("test")[:20]
    assert sorted(chosen("test")) == sorted(p.text for p in split("test"))
    assert len(chosen("dense", 7)) == 7 and len(chosen("held_out", 1000)) == 100


def test_overall_weighs_families_not_images():
    good = {p.text for p in split("test") if p.family == "single_object"}

    def sample(tasks, settings):
        return [chain(t.prompt, [(t.prompt in good, 0.9)], settings, i) for i, t in enumerate(tasks)]

    result = evaluate_world(sample, EvalOptions(rounds=(1,), limit=8, samples=1))
    assert result["rounds"]["1"]["families"]["single_object"]["n"] == 2
    assert mean(result["rounds"]["1"]["overall"]) == pytest.approx(1 / 6)
    assert mean(result["verdict"]["base_rate"]) == pytest.approx(2 / 8)


def test_undefined_metrics_are_null():
    def sample(tasks, settings):
        return [chain(t.prompt, [(True, 0.9)], settings, i) for i, t in enumerate(tasks)]

    result = evaluate_world(sample, replace(OPTIONS, split="held_out"))
    assert result["verdict"]["auroc"] is None and result["verdict"]["balanced"] is None
    assert result["verdict"]["balanced_accuracy"] is None and mean(result["verdict"]["ece"]) == pytest.approx(0.1)
    json.dumps(result, allow_nan=False)
    assert "n/a" in markdown(result)


def test_failures_are_counted_and_left_out_not_scored_zero():
    class Flaky(Shapes):
        seen = 0

        def check(self, task, image):
            self.seen += 1
            if self.seen <= 2:
                raise RuntimeError("no picture")
            return super().check(task, image)

    result = evaluate_world(Scripted(), OPTIONS, Flaky())
    # The first chain fails, and the first draft of the second.
    assert result["failures"]["drafts"] == 2 and result["failures"]["chains"] == 2
    assert result["failures"]["examples"][0] == "RuntimeError: no picture"
    assert result["introspection"]["fixed"]["n"] == 22
    assert mean(result["introspection"]["fixed"]) == pytest.approx(11 / 22)
    assert "2 images could not be scored" in markdown(result)
    json.dumps(result, allow_nan=False)


def test_nan_p_yes_is_a_failure():
    def sample(tasks, settings):
        return [chain(t.prompt, [(True, float("nan") if i == 0 else 0.9)], settings, i) for i, t in enumerate(tasks)]

    result = evaluate_world(sample, replace(OPTIONS, rounds=(1,)))
    assert result["failures"]["chains"] == 1 and result["verdict"]["accuracy"]["n"] == 23


def test_a_family_without_any_score_stops_the_run():
    class Broken(Shapes):
        def check(self, task, image):
            raise RuntimeError("no picture")

    with pytest.raises(UserError, match=r"colors.*no picture"):
        evaluate_world(Scripted(), OPTIONS, Broken())


def test_a_sampler_in_the_wrong_order_is_noticed():
    with pytest.raises(ValueError, match="in order"):
        evaluate_world(lambda tasks, settings: Scripted()(tasks[::-1], settings), OPTIONS)


@pytest.mark.parametrize(
    "wrong", [{"split": "train"}, {"rounds": ()}, {"rounds": (0, 1)}, {"samples": 0}, {"limit": 0}, {"world": "none"}]
)
def test_options_that_cannot_be_meant(wrong):
    with pytest.raises(UserError):
        evaluate_world(Scripted(), EvalOptions(**wrong))


def test_reports_show_the_same_figures(result):
    console = Console(width=160)
    with console.capture() as captured:
        print_report(result, console)
    for text in (captured.get(), markdown(result)):
        assert "overall (mean of families)" in text and "blind redraw of 3" in text
        assert "0.750 [" in text and "best of 2.86 (equal tokens)" in text
        assert "scripted on test: 6 prompts x 4 samples" in text
    table = [line for line in markdown(result).splitlines() if line.startswith("| ")]
    assert {line.count("|") for line in table[:12]} == {5}


def test_tokenizer_survival_counts_scenes_whose_objects_are_all_there(tiny, monkeypatch):
    """A random tokenizer keeps next to nothing; one that returns its input keeps everything."""
    from janus_r1.eval.understanding import TokenizerOptions, evaluate_tokenizer

    options = TokenizerOptions(scenes=20, batch=8)
    assert evaluate_tokenizer(tiny, options)["seen_combinations"]["kept"]["mean"] < 0.2
    seen = []

    def remember(pixels):
        seen.append(pixels)
        return tiny.layout.special.pad * np.ones((len(pixels), 64), int)

    monkeypatch.setattr(tiny, "encode_image", remember)
    monkeypatch.setattr(
        tiny, "decode_image", lambda ids: ((seen[-1] + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    )
    perfect = evaluate_tokenizer(tiny, options)["seen_combinations"]
    assert perfect["kept"]["mean"] == 1.0 and perfect["error"] == 0.0
