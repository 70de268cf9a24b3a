"""The world: splits that do not leak, scenes that fulfil their prompts, a verifier that sees."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageFilter

from janus_r1.worlds.shapes.prompts import GENEVAL_COUNTS, alterations, is_held_out, sample_prompt, split, train_prompts
from janus_r1.worlds.shapes.questions import ask, describe
from janus_r1.worlds.shapes.scene import (
    BACKGROUNDS,
    COLOURS,
    GAP,
    HELD_OUT,
    SHAPES,
    SIZES,
    Description,
    Scene,
    SceneObject,
    Slot,
    holds,
    render,
    sample_scene,
)
from janus_r1.worlds.shapes.verifier import find_objects, verify, verify_scene

ONE_RED_CIRCLE = Description((Slot("circle", "red"),))


def pictures(count: int, seed: int):
    """Training prompts with a rendering of each."""
    rng = random.Random(seed)
    for prompt in itertools.islice(train_prompts(rng), count):
        yield prompt, render(sample_scene(prompt.description, rng))


# --------------------------------------------------------------------------------------- the splits


def test_test_split_has_genevals_proportions():
    assert Counter(p.family for p in split("test")) == GENEVAL_COUNTS
    assert len({p.text for p in split("test")}) == 553


def test_validation_looks_like_test_and_repeats_none_of_it():
    assert Counter(p.family for p in split("validation")) == GENEVAL_COUNTS
    assert not {p.text for p in split("validation")} & {p.text for p in split("test")}


def test_no_training_prompt_is_in_another_split():
    reserved = {p.text for name in ("test", "dense", "held_out") for p in split(name)}
    descriptions = {p.description for name in ("test", "dense") for p in split(name) if p.family == "dense"}
    for prompt in itertools.islice(train_prompts(random.Random(0)), 20_000):
        assert prompt.text not in reserved
        assert prompt.description not in descriptions


def test_held_out_pairs_are_in_every_held_out_prompt_and_in_no_training_picture():
    for prompt in split("held_out"):
        assert is_held_out(prompt.description), prompt.text
    rng = random.Random(0)
    for prompt in itertools.islice(train_prompts(rng), 3_000):
        scene = sample_scene(prompt.description, rng)
        assert not any((o.shape, o.colour) in HELD_OUT for o in scene.objects), prompt.text
    for name in ("test", "dense"):
        assert not any(is_held_out(p.description) for p in split(name))


def test_splits_are_frozen():
    """Committed results belong to these prompts: a change of the sampler must not move them unseen."""
    first = [split(name)[0].text for name in ("test", "dense", "held_out")]
    assert first == FROZEN


FROZEN = [
    "a picture of a large star",
    "show me a green diamond left of a blue heart, and a red circle right of a brown cross",
    "make a picture of a brown diamond",
]


# --------------------------------------------------------------------------------------- the scenes


def test_scenes_fulfil_their_description_and_never_touch():
    rng = random.Random(1)
    for prompt in itertools.islice(train_prompts(rng), 500):
        scene = sample_scene(prompt.description, rng)
        for slot, item in zip(prompt.description.slots, scene.objects, strict=True):
            assert slot.shape in (None, item.shape) and slot.colour in (None, item.colour)
        for a, b in itertools.combinations(scene.objects, 2):
            apart_x = max(a.x, b.x) - min(a.x + a.side, b.x + b.side)
            apart_y = max(a.y, b.y) - min(a.y + a.side, b.y + b.side)
            assert max(apart_x, apart_y) >= GAP


def test_open_attributes_vary():
    rng = random.Random(0)
    scenes = [sample_scene(Description((Slot("star"),)), rng).objects[0] for _ in range(200)]
    assert len({o.colour for o in scenes}) >= 8 and len({(o.x, o.y) for o in scenes}) >= 60


def test_three_in_a_row_are_always_placed():
    row = Description(tuple(Slot(s) for s in ("star", "square", "heart")), ((0, "left of", 1), (2, "right of", 1)))
    rng = random.Random(0)
    for _ in range(300):
        star, square, heart = sample_scene(row, rng).objects
        assert star.centre[0] < square.centre[0] < heart.centre[0]


def test_contradictory_description_is_refused():
    loop = Description((Slot("star"), Slot("ring")), ((0, "left of", 1), (1, "left of", 0)))
    with pytest.raises(ValueError, match="contradictory"):
        sample_scene(loop, random.Random(0))


def test_relations_exclude_each_other():
    rng = random.Random(0)
    for _ in range(2_000):
        a, b = ((rng.uniform(0, 64), rng.uniform(0, 64)) for _ in range(2))
        assert sum(holds(r, a, b) for r in ("left of", "right of", "above", "below")) <= 1
    assert holds("left of", (10, 30), (40, 30)) and holds("above", (30, 10), (30, 40))


# ------------------------------------------------------------------------------------- the verifier


def test_accepts_renderings():
    judged = [verify(image, prompt.description) for prompt, image in pictures(1_500, seed=2)]
    assert np.mean([v.correct for v in judged]) >= 0.99
    assert all(v.score == 1.0 for v in judged if v.correct)


def test_a_scene_is_judged_as_its_picture_is():
    rng, alike = random.Random(5), []
    for prompt in itertools.islice(train_prompts(rng), 150):
        for wanted in (prompt.description, *alterations(prompt, rng).values()):
            scene = sample_scene(wanted, rng)
            alike.append(
                verify_scene(scene, prompt.description).verdict == verify(render(scene), prompt.description).verdict
            )
    assert len(alike) > 800 and np.mean(alike) >= 0.99


def test_rejects_renderings_of_a_prompt_changed_in_one_fact():
    verdicts: dict[str, list[bool]] = {}
    for prompt, image in pictures(1_500, seed=3):
        for fact, description in alterations(prompt).items():
            judged = verify(image, description)
            verdicts.setdefault(fact, []).append(not judged.correct)
            assert judged.correct or (judged.score <= 0.49 and judged.reason)
    repeated = {"repeated shape", "repeated colour"}
    assert set(verdicts) == {"shape", "colour", "size", "count", "missing", "relation", "binding"} | repeated
    for fact, rejected in verdicts.items():
        assert len(rejected) > 100 and np.mean(rejected) >= 0.99, fact


@pytest.mark.parametrize(("noise", "blur"), [(10, 0.0), (0, 0.7), (10, 0.7)])
def test_survives_blur_and_noise_like_the_tokenizers(noise, blur):
    """The tiny tokenizer itself errs by about 2 grey levels (RMS): this is harsher."""
    generator, kept = np.random.default_rng(0), []
    for prompt, image in pictures(500, seed=4):
        blurred = Image.fromarray(image).filter(ImageFilter.GaussianBlur(blur))
        noisy = np.asarray(blurred) + generator.normal(0, noise, image.shape)
        kept.append(verify(np.clip(noisy, 0, 255).astype(np.uint8), prompt.description).correct)
    assert np.mean(kept) >= 0.99


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_names_every_object(shape, background):
    for colour, size in itertools.product(COLOURS, SIZES):
        scene = Scene(background, (SceneObject(shape, colour, size, 20, 12),))
        (seen,) = find_objects(render(scene))
        assert (seen.shape, seen.colour, seen.size) == (shape, colour, size)
        assert abs(seen.centre[0] - scene.objects[0].centre[0]) <= 1.5


def test_score_counts_the_facts_that_hold():
    circle = SceneObject("circle", "red", "large", 4, 4)
    image = render(Scene("black", (circle,)))
    assert verify(image, ONE_RED_CIRCLE).score == 1.0
    wrong_colour = verify(image, Description((Slot("circle", "blue"),)))
    assert wrong_colour.reason == "the circle is red, not blue"
    assert wrong_colour.score == pytest.approx(0.49 * 2 / 3)  # count and shape hold, colour does not
    two = verify(image, Description((Slot("circle", "red"), Slot("star", "blue"))))
    assert two.reason == "there is 1 object instead of 2"
    assert two.score == pytest.approx(0.49 * 2 / 5)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_empty_picture_is_wrong_not_an_error(value):
    assert not verify(np.full((64, 64, 3), value, np.uint8), ONE_RED_CIRCLE).correct


def test_noise_is_wrong_not_an_error():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert verify(image, ONE_RED_CIRCLE).score <= 0.49


# ------------------------------------------------------------------------------------ the questions


def test_questions_have_true_answers():
    rng = random.Random(0)
    for prompt in itertools.islice(train_prompts(rng), 2_000):
        scene = sample_scene(prompt.description, rng)
        question, answer = ask(scene, prompt, rng)
        if question == "Describe the image.":
            assert answer == describe(scene) and all(o.shape in answer for o in scene.objects)
        elif question.startswith("What colour"):
            shape = question.split()[-1].rstrip("?")
            assert [o.colour for o in scene.objects if o.shape == shape] == [answer]
        elif question == f"Does this image match: {prompt.text}?":
            assert answer == "Yes"


def test_every_family_can_be_sampled_with_a_held_out_pair():
    rng = random.Random(0)
    for family in GENEVAL_COUNTS:
        assert is_held_out(sample_prompt(family, rng, held_out=True).description)
