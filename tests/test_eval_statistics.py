"""Intervals, paired differences and judge metrics against hand-worked numbers and simulations."""

import numpy as np
import pytest

from janus_r1.eval import statistics as st


def clustered(rng: np.random.Generator, prompts: int = 40, samples: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong images whose prompts differ in difficulty; the true mean is 2/3."""
    difficulty = rng.beta(1.0, 0.5, size=prompts)
    values = rng.random((prompts, samples)) < difficulty[:, None]
    return values.ravel().astype(float), np.repeat(np.arange(prompts), samples)


def test_interval_covers_the_truth_only_when_prompts_are_resampled_whole():
    rng = np.random.default_rng(1)
    covered, covered_naively = [], []
    for _ in range(120):
        values, prompts = clustered(rng)
        by_prompt, by_image = st.figure(values, prompts), st.figure(values, np.arange(len(values)))
        covered.append(by_prompt["low"] <= 2 / 3 <= by_prompt["high"])
        covered_naively.append(by_image["low"] <= 2 / 3 <= by_image["high"])
    assert 0.90 <= np.mean(covered) <= 0.99
    assert np.mean(covered_naively) < 0.85


def test_figure_counts_images_and_takes_any_labels():
    result = st.figure([1, 0, 1, 1], ["b", "b", "a", "a"])
    assert result["mean"] == 0.75 and result["n"] == 4
    assert result == st.figure([1, 1, 1, 0], [7, 7, 9, 9])


def test_prompts_of_unequal_size_weigh_by_their_images():
    result = st.figure([1, 1, 1, 0], [0, 0, 0, 1])
    assert result["mean"] == 0.75
    assert (result["low"], result["high"]) == (0.0, 1.0)


def test_all_right_is_not_certain():
    result = st.figure(np.ones(160), np.repeat(np.arange(40), 4))
    assert result["mean"] == result["high"] == 1.0
    assert result["low"] == pytest.approx(40 / (40 + 1.959964**2))
    assert result["n"] == 160


def test_equal_prompts_with_mixed_images_are_not_certain():
    result = st.figure([1, 0] * 20, np.repeat(np.arange(20), 2))
    low, high = st.wilson(0.5, 20)
    assert (result["low"], result["high"]) == pytest.approx((low, high))
    assert low == pytest.approx(1 - high) and low == pytest.approx(0.2993, abs=1e-4)


def test_one_prompt_is_one_observation():
    result = st.figure([1, 1, 1, 0], [3, 3, 3, 3])
    assert result["mean"] == 0.75 and result["low"] < 0.2 and result["high"] > 0.95


def test_bounds_scale_the_interval_of_a_constant():
    rounds = st.figure([1] * 40, np.arange(40), bounds=(1, 3))
    assert rounds["low"] == 1 and rounds["high"] == pytest.approx(1 + 2 * (1 - 40 / (40 + 1.959964**2)))
    tokens = st.figure([66] * 40, np.arange(40), bounds=None)
    assert tokens == {"mean": 66, "low": 66, "high": 66, "n": 40}


def test_paired_difference_is_narrower_than_two_independent_arms():
    rng = np.random.default_rng(2)
    first, prompts = clustered(rng)
    second = np.where(rng.random(len(first)) < 0.2, 1.0, first)
    difference = st.paired_difference(first, second, prompts)
    assert difference["mean"] == pytest.approx(second.mean() - first.mean())
    assert difference["low"] > 0
    one, other = st.figure(first, prompts), st.figure(second, prompts)
    paired = difference["high"] - difference["low"]
    assert paired < 0.6 * np.hypot(one["high"] - one["low"], other["high"] - other["low"])
    back = st.paired_difference(second, first, prompts)
    assert back["mean"] == pytest.approx(-difference["mean"]) and back["high"] == pytest.approx(-difference["low"])


def test_no_change_at_all_is_not_certain():
    values, prompts = clustered(np.random.default_rng(3))
    difference = st.paired_difference(values, values, prompts)
    reach = 1 - 40 / (40 + 1.959964**2)
    assert (difference["low"], difference["mean"], difference["high"]) == pytest.approx((-reach, 0, reach))
    risen = st.paired_difference(np.zeros(40), np.ones(40), np.arange(40))
    assert risen["mean"] == risen["high"] == 1 and risen["low"] == pytest.approx(1 - np.sqrt(2) * reach)


def test_mean_of_families_weighs_them_equally_and_combines_their_intervals():
    small = st.Figure(mean=1.0, low=0.8, high=1.0, n=10)
    large = st.Figure(mean=0.5, low=0.4, high=0.6, n=90)
    result = st.mean_of([small, large])
    assert result["mean"] == 0.75 and result["n"] == 100
    assert result["low"] == pytest.approx(0.75 - np.hypot(0.1, 0.05)) and result["high"] == pytest.approx(0.8)


def test_mean_of_families_agrees_with_resampling_within_families():
    rng = np.random.default_rng(4)
    families = [clustered(rng, prompts=60) for _ in range(3)]
    result = st.mean_of([st.figure(values, prompts) for values, prompts in families])
    means = [values.reshape(60, 4).mean(1) for values, _ in families]
    drawn = [np.mean([rng.choice(m, 60).mean() for m in means]) for _ in range(2000)]
    assert (result["low"], result["high"]) == pytest.approx(np.percentile(drawn, (2.5, 97.5)), abs=0.01)


def test_auroc_counts_ties_half():
    assert st.auroc([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0]) == pytest.approx(3.5 / 4)
    assert st.auroc([0.5, 0.5, 0.5], [1, 0, 0]) == pytest.approx(0.5)
    assert st.auroc([0.1, 0.9], [1, 0]) == 0.0
    assert st.auroc([0.1, 0.9], [1, 1]) is None and st.auroc([0.1, 0.9], [0, 0]) is None


def test_ece_of_hand_worked_bins():
    def ece(p_yes, truth):
        return st.ece_figure(p_yes, truth, range(len(truth)))["mean"]

    # First bin: one image, |0 - 0.05|. Last bin (1.0 included): |2 right - (0.95 + 0.95 + 1.0)|.
    assert ece([0.05, 0.95, 0.95, 1.0], [0, 1, 0, 1]) == pytest.approx((0.05 + 0.9) / 4)
    assert ece([0.5] * 4, [1, 0, 1, 0]) == pytest.approx(0)
    # A right image at 0.61 and a wrong one at 0.39 do not make up for each other: they lie in other bins.
    assert ece([0.61, 0.39], [1, 0]) == pytest.approx(0.39)


def test_balanced_accuracy():
    said, truth = [1, 1, 1, 0, 1], [1, 1, 1, 1, 0]
    assert st.balanced_accuracy(said, truth) == pytest.approx((0.75 + 0) / 2)
    assert st.balanced_accuracy([1, 0], [1, 1]) is None


def judged(prompts: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    truth, clusters = clustered(rng, prompts)
    return np.clip(np.round(0.4 * truth + 0.6 * rng.random(len(truth)), 1), 0, 1), truth, clusters


def plain_ece(p_yes: np.ndarray, truth: np.ndarray) -> float:
    """By its definition, a bin after the other."""
    place = np.minimum(p_yes * 10, 9).astype(int)
    gaps = [abs(truth[place == b].mean() - p_yes[place == b].mean()) * (place == b).mean() for b in set(place.tolist())]
    return float(sum(gaps))


@pytest.mark.parametrize(
    ("with_interval", "plain"),
    [(st.auroc_figure, st.auroc), (st.ece_figure, plain_ece), (st.balanced_accuracy_figure, st.balanced_accuracy)],
)
def test_metric_intervals_match_a_plain_bootstrap(with_interval, plain):
    p_yes, truth, clusters = judged()
    said = p_yes if with_interval is not st.balanced_accuracy_figure else (p_yes > 0.5).astype(float)
    result = with_interval(said, truth, clusters)
    assert result["mean"] == pytest.approx(plain(said, truth)) and result["n"] == len(truth)
    rng, drawn = np.random.default_rng(6), []
    rows = np.arange(len(truth)).reshape(30, 4)
    for _ in range(1500):
        picked = rows[rng.integers(0, 30, 30)].ravel()
        drawn.append(plain(said[picked], truth[picked]))
    shift = np.mean(drawn) - result["mean"] if plain is plain_ece else 0
    assert (result["low"], result["high"]) == pytest.approx(np.percentile(drawn, (2.5, 97.5)) - shift, abs=0.02)


def test_a_perfect_judge_is_not_certain_and_a_missing_class_is_undefined():
    truth = np.array([1.0] * 30 + [0.0] * 10)
    result = st.auroc_figure(truth, truth, np.arange(40))
    assert result["mean"] == result["high"] == 1.0
    assert result["low"] == pytest.approx(10 / (10 + 1.959964**2))  # ten wrong images are what it rests on
    assert st.auroc_figure(truth, np.ones(40), np.arange(40)) is None
    assert st.balanced_accuracy_figure(truth, np.ones(40), np.arange(40)) is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_a_number_is_an_error(bad):
    values, truth, clusters = [0.5, bad, 1.0], [1, 0, 1], [0, 1, 2]
    for call in (
        lambda: st.figure(values, clusters),
        lambda: st.paired_difference(truth, values, clusters),
        lambda: st.auroc(values, truth),
        lambda: st.balanced_accuracy(values, truth),
        lambda: st.auroc_figure(values, truth, clusters),
        lambda: st.ece_figure(values, truth, clusters),
    ):
        with pytest.raises(ValueError, match="NaN"):
            call()


def test_empty_and_uneven_input_is_an_error():
    for call in (lambda: st.figure([], []), lambda: st.figure([1, 0], [1]), lambda: st.auroc([1], [1, 0])):
        with pytest.raises(ValueError, match="non-empty"):
            call()
    with pytest.raises(ValueError, match="no figures"):
        st.mean_of([])
