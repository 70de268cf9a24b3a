"""Judges in this process: the world's verifier, a transformers VLM and a Janus checkpoint."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

import tiny_vlm
from janus_r1.chain import Chain, Round, Settings, Task, Verdict
from janus_r1.errors import UserError
from janus_r1.images import square
from janus_r1.introspect import judge
from janus_r1.rewards.janus import JanusReward
from janus_r1.rewards.local_vlm import LocalVlmReward, Vlm, p_yes
from janus_r1.rewards.questions import spelling
from janus_r1.rewards.score import Abstained
from janus_r1.rewards.world import WorldReward, true_reasons
from janus_r1.segments import Source
from janus_r1.worlds.shapes.edit_cases import edit_split
from janus_r1.worlds.shapes.mistakes import side_effects
from janus_r1.worlds.shapes.prompts import split
from janus_r1.worlds.shapes.scene import Description, Slot, render, sample_scene


def picture(description: Description, seed: int = 0) -> np.ndarray:
    return render(sample_scene(description, random.Random(seed)))


def noise(seed: int, side: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


# --------------------------------------------------------------------------------------- spellings


@pytest.mark.parametrize("token", ["Yes", " yes", "YES", "ĠYes", "▁yes", "yes.", '"Yes', "**Yes", " Yes,", "\nyes"])
def test_spellings_of_yes(token):
    assert spelling(token) == "yes"
    assert spelling(token.replace("es", "").replace("ES", "").replace("Y", "No").replace("y", "no")) == "no"


@pytest.mark.parametrize("token", ["", "Y", "yesterday", "Not", "none", "Ġ", "yes no", "n", "ÿes"])
def test_other_tokens(token):
    assert spelling(token) is None


# ----------------------------------------------------------------------------------------- world


def test_the_world_scores_right_and_wrong_pictures():
    red, blue = Description((Slot("circle", "red", "large"),)), Description((Slot("circle", "blue", "large"),))
    items = [(Task("Draw a large red circle."), picture(d)) for d in (red, blue)]
    assert WorldReward().score(items) == [1.0, pytest.approx(0.49 * 3 / 4)]
    assert WorldReward(binary=True).score(items) == [1.0, 0.0]


def test_the_world_accepts_renderings_of_the_test_prompts():
    prompts = split("test")[::8]
    scores = WorldReward().score([(Task(p.text), picture(p.description, i)) for i, p in enumerate(prompts)])
    assert sum(score == 1.0 for score in scores) >= 0.97 * len(prompts)


def test_the_world_abstains_on_what_it_cannot_judge():
    circle = picture(Description((Slot("circle", "red"),)))
    items = [
        (Task("a photo of a dog"), circle),
        (Task("make it more cheerful", circle), circle),
        (Task("remove the blue star", circle), circle),
        (Task("a red circle"), noise(0, 32)),
        (Task("make the red circle blue", noise(0, 32)), circle),
    ]
    causes = [score.cause for score in WorldReward().score(items)]
    assert causes[:3] == ["not in the world's language"] * 2 + ["the edit does not fit its source"]
    assert all(cause.startswith("the world's images are 64x64") for cause in causes[3:])


@pytest.mark.parametrize("weights", [(0.5, 1.0), (1.0, 0.25)])
def test_the_world_weighs_following_and_preserving(weights):
    case = next(case for case in edit_split("test") if case.instruction.family == "recolour")
    source, target = render(case.source), render(case.target)
    spoilt = render(side_effects(case, random.Random(0))["background"])
    items = [(Task(case.instruction.text, source), image) for image in (target, source, spoilt)]
    right, copied, repainted = WorldReward(binary=True, edit_weights=weights).score(items)
    follow, preserve = weights
    assert right == 1.0
    assert copied == pytest.approx(preserve / (follow + preserve))
    assert repainted == pytest.approx(follow / (follow + preserve))
    partial = WorldReward(edit_weights=weights).score(items)
    assert partial[0] == 1.0 and copied < partial[1] < 1.0, "some facts about the object still hold"
    joint = WorldReward(edit_weights=weights, joint=True).score(items)
    assert joint == pytest.approx([1.0, 0.49 * partial[1], 0.49 * partial[2]])


def told(prompt: str, rounds: list[tuple[np.ndarray, str]], source: np.ndarray | None = None) -> Chain:
    verdicts = [Verdict(text.startswith("Yes"), text, 0.5) for _, text in rounds]
    drafts = [Round((), image, verdict) for (image, _), verdict in zip(rounds, verdicts, strict=True)]
    return Chain(prompt, tuple(drafts), 0, Settings(), source=None if source is None else Source((), source))


def test_reasons_are_true_when_the_verifier_finds_the_same():
    blue_star = picture(Description((Slot("star", "blue"),)))
    rounds = [
        (blue_star, "No, there is a blue star instead of a red ring."),
        (blue_star, "No, the star is blue, not red."),  # also true, though not the first that is found
        (blue_star, "No, there are 2 objects instead of 1."),
        (blue_star, "Yes, the image matches the prompt."),
    ]
    assert true_reasons(told("a red ring", rounds)) == (1.0, 1.0, 0.0, None)
    red_ring = picture(Description((Slot("ring", "red"),)))
    assert true_reasons(told("a red ring", [(red_ring, "No, the star is blue, not red.")])) == (0.0,)
    assert true_reasons(told("a dog", rounds[:1])) == (None,)


def test_reasons_about_edits_may_be_about_what_should_have_been_kept():
    case = next(case for case in edit_split("test") if case.instruction.family == "recolour")
    source = render(case.source)
    spoilt = render(side_effects(case, random.Random(0))["background"])
    rounds = [(spoilt, "No, the background has changed."), (source, "No, the background has changed.")]
    assert true_reasons(told(case.instruction.text, rounds, source)) == (1.0, 0.0)


# ------------------------------------------------------------------------------------- local VLM


@pytest.fixture(scope="module")
def vlm_folder(tmp_path_factory):
    return tiny_vlm.save_vlm(tmp_path_factory.mktemp("vlm"))


@pytest.fixture
def vlm(vlm_folder) -> LocalVlmReward:
    return LocalVlmReward(Vlm.load(str(vlm_folder)), min_mass=0.0)


def test_p_yes_sums_over_spellings():
    probabilities = torch.tensor([[0.1, 0.3, 0.1, 0.1, 0.4], [0.0, 0.04, 0.0, 0.04, 0.92]])
    first, second = p_yes(probabilities.log(), [0, 1], [2, 3], min_mass=0.1)
    assert first == pytest.approx(0.4 / 0.6)
    assert isinstance(second, Abstained) and second.cause == "neither yes nor no"


def test_broken_logits_abstain_in_their_row_alone():
    logits = torch.zeros(3, 4)
    logits[1, 2] = float("nan")
    scores = p_yes(logits, [0], [1], min_mass=0.0)
    assert scores[0] == scores[2] == 0.5 and isinstance(scores[1], Abstained)


def test_a_batch_of_different_lengths_scores_as_each_alone(vlm):
    items = [(Task(text), noise(i)) for i, text in enumerate(("a", "a much longer prompt than that", "two"))]
    items.append((Task("make it red", noise(9)), noise(8)))
    vlm.batch_size = 3
    together = vlm.score(items)
    assert together == pytest.approx([vlm.score([item])[0] for item in items], abs=1e-5)
    assert len({round(score, 4) for score in together}) == len(items), "equal scores show nothing"


def test_the_local_judge_agrees_with_a_plain_forward(vlm):
    """Recomputed from the template's text, without padding, with the ids of the words found by hand."""
    item = (Task("a red circle"), noise(3))
    text = "<image>Description: a red circle\nDoes the image show what the description says? Reply with yes or no only."
    inputs = vlm.vlm.processor(images=[item[1]], text=f"{text} Answer:", return_tensors="pt")
    with torch.no_grad():
        probabilities = vlm.vlm.model(**inputs).logits[0, -1].softmax(-1)
    yes, no = probabilities[[3, 4, 5]].sum(), probabilities[[6, 7]].sum()
    assert vlm.score([item]) == [pytest.approx(float(yes / (yes + no)), abs=1e-5)]


def test_the_image_and_the_source_matter(vlm):
    first, second = noise(1), noise(2)
    assert vlm.score([(Task("a"), first)]) != vlm.score([(Task("a"), second)])
    assert vlm.score([(Task("a", second), first)]) != vlm.score([(Task("a", first), second)])


def test_a_prompt_that_spells_a_special_token_does_not_derange_its_batch(vlm):
    items = [(Task("a"), noise(1)), (Task("an <image> of"), noise(1)), (Task("a"), noise(1))]
    first, middle, last = vlm.score(items)
    assert isinstance(middle, Abstained)
    assert first == pytest.approx(last) and not isinstance(first, Abstained)


def test_a_tokenizer_without_yes_is_refused():
    made = tiny_vlm.processor(["<pad>", "<image>", "<unk>", "no"])
    with pytest.raises(UserError, match="no single token for yes"):
        LocalVlmReward(Vlm(tiny_vlm.model(len(made.tokenizer)), made))


def test_folders_that_hold_no_judge(tmp_path, vlm_folder, tiny_folder):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match="cannot load the judge") as caught:
            Vlm.load(str(folder))
        assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------- Janus as judge


def test_a_janus_judge_gives_the_p_yes_of_its_verdicts(tiny):
    images = [noise(i, side) for i, side in enumerate((64, 64, 100))]
    prompts = ["a red circle", "two rings", "a small blue square left of a star"]
    shown = [square(image, tiny.image_size) for image in images]
    expected = [verdict.p_yes for verdict in judge(tiny, shown, [Task(p) for p in prompts], Settings())]
    items = [(Task(prompt), image) for prompt, image in zip(prompts, images, strict=True)]
    assert JanusReward(tiny, batch_size=2).score(items) == pytest.approx(expected, abs=1e-5)
    assert len({round(p, 4) for p in expected}) > 1


def test_a_janus_judge_abstains_on_what_it_cannot_judge(tiny):
    image = noise(0, 64)
    items = [(Task(""), image), (Task("a circle"), image), (Task("a <|User|> circle"), image)]
    scores = JanusReward(tiny).score(items)
    assert [isinstance(score, Abstained) for score in scores] == [True, False, True]
    assert JanusReward(tiny).score([]) == []


def test_a_janus_judge_looks_at_the_source_of_an_edit(tiny):
    """Plain and edited items in one batch, in any order; the verdict follows from the source."""
    image, sources = noise(0, 64), [noise(1, 64), noise(2, 100)]
    items = [(Task("add a ring", sources[0]), image), (Task("add a ring"), image)]
    items.append((Task("add a ring", sources[1]), image))
    scores = JanusReward(tiny).score(items)
    assert len({round(float(score), 4) for score in scores}) == 3
    expected = judge(tiny, [image] * 3, [task for task, _ in items], Settings())
    assert scores == pytest.approx([verdict.p_yes for verdict in expected], abs=1e-5)
