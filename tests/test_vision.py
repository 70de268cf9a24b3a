"""Teaching the understanding encoder: the words of patches, and how well they are told apart."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch

from janus_r1.train.loop import RunOptions
from janus_r1.worlds.shapes.prompts import train_prompts
from janus_r1.worlds.shapes.questions import checklist
from janus_r1.worlds.shapes.scene import Scene, SceneObject, sample_scene
from janus_r1.worlds.shapes.training.vision import KINDS, VisionRecipe, VisionStage, patch_words, told_apart


def test_a_patch_is_named_after_what_covers_it():
    scene = Scene("navy", (SceneObject("square", "red", "small", 8, 16), SceneObject("ring", "blue", "large", 40, 40)))
    words = patch_words(scene, grid=8)
    named = {i: w for i, w in enumerate(words) if len(w) == 3}
    red = {i for i, w in named.items() if w == ("small", "red", "square")}
    assert red == {2 * 8 + 1, 2 * 8 + 2, 3 * 8 + 1, 3 * 8 + 2}  # 16 pixels at (8, 16) are four patches
    ring = {i for i, w in named.items() if w == ("large", "blue", "ring")}
    middle = 6 * 8 + 6
    assert len(ring) == 8 and middle not in ring  # nine patches, but a ring leaves its middle free
    assert words[0] == ("navy",) and words[middle] == ("navy",)


def test_told_apart_looks_at_differences_only():
    table = torch.tensor([[5.0, 1.0], [5.0, -1.0], [0.0, 0.0]])  # two words with a large common part, and none
    features = torch.tensor([[5.0, 1.0], [9.0, -1.0], [5.0, 1.0]])
    entropy, right = told_apart(features, table, torch.tensor([0, 1, 2]))
    assert right == 1.0 and entropy < 0.01  # the third patch has no word of this kind
    assert told_apart(features[:2], table, torch.tensor([1, 0]))[1] == 0.0


def test_the_encoder_alone_is_trained_towards_the_words(tiny_folder, tmp_path):
    run = RunOptions(out=str(tmp_path), steps=2, threads=1, precision="no")
    stage = VisionStage(VisionRecipe(run=run, model=str(tiny_folder), batch=6))
    before = {k: v.clone() for k, v in stage.janus.state_dict().items()}
    losses = []
    for _ in range(12):
        loss, figures = stage.loss(stage.module, stage.batches(0)[0])
        loss.backward()
        losses.append(loss.item())
        for optimizer in stage.optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert losses[-1] < losses[0] and figures.keys() == {"unexplained", *(f"right_{kind}" for kind in KINDS)}
    changed = {k.split(".")[2] for k, v in stage.janus.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"vision_model", "aligner"}


def test_a_fresh_encoder_is_not_the_models(tiny_folder, tmp_path):
    recipe = VisionRecipe(run=RunOptions(out=str(tmp_path), seed=3), model=str(tiny_folder), fresh=False)
    kept = VisionStage(recipe).module.state_dict()
    recipe.fresh = True
    fresh = VisionStage(recipe).module.state_dict()
    assert any(not torch.equal(kept[name], fresh[name]) for name in kept)


# -------------------------------------------------------------------------------------- checklists


def test_checklists_are_true_and_half_of_them_yes():
    rng, answers = random.Random(0), []
    for prompt in itertools.islice(train_prompts(rng), 300):
        scene = sample_scene(prompt.description, rng)
        for text, answer in checklist(scene, 5, rng):
            words = set(text.split())
            assert answer == any(words <= {o.size, o.colour, o.shape} for o in scene.objects)
            answers.append(answer)
    assert 0.45 < np.mean(answers) < 0.55


def test_only_the_answers_of_a_checklist_are_learnt(tiny):
    row = tiny.layout.checklist(np.zeros((64, 64, 3), np.uint8), "Which?", [("red", True), ("small star", False)])
    learnt = [segment.ids for segment in row if getattr(segment, "learn", False)]
    assert learnt == [(tiny.layout.special.yes,), (tiny.layout.special.no,)]
    assert tiny.tokenizer.decode(row[-2].ids) == " small star"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_words(kind):
    assert len(set(KINDS[kind])) == len(KINDS[kind]) > 1
