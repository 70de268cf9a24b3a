"""The benchmark's official structure does the same work as ours: it scores the same tokens alike."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

import rl_official
import rl_step as bench
from janus_r1.segments import Drawn
from janus_r1.train.policy import Policy, rows_of
from test_rl import chains_of, small


def test_the_rival_scores_images_as_the_tempered_policy_does(tiny):
    chains = chains_of(tiny, rounds=1)
    expected, _ = Policy(tiny, chains[0].settings, "tempered")(rows_of(tiny.layout, chains))
    rows = [(tiny.layout.prompt(c.prompt), Drawn(c.rounds[0].ids, learn=True)) for c in chains]
    with torch.no_grad():
        logprobs, counts = rl_official.image_logprobs(tiny, rows, chains[0].settings.guidance)
    assert counts.tolist() == [tiny.image_tokens] * len(chains)
    assert torch.allclose(logprobs, expected, atol=1e-4)


def test_left_padding_moves_rows_to_the_end(tiny):
    rows = [(tiny.layout.prompt(text),) for text in ("a red circle", "two small green stars left of a blue ring")]
    turned, mask = rl_official.left_padded(tiny, rows)
    assert mask.sum(1).tolist() == [len(row[0]) for row in rows]
    alone = tiny.embed_rows(rows[:1])[0]
    assert torch.equal(turned[0, -len(alone) :], alone)


def test_both_arms_make_a_step(tiny_folder, tmp_path):
    recipe = small(tiny_folder, tmp_path, kl=bench.KL, lr=1e-30)
    stage = bench.Parts(recipe)
    ours, official = bench.ours(stage), bench.official(stage)
    assert 6 <= ours.images <= official.images == 12
    assert all(step.seconds.keys() == set(bench.PARTS) for step in (ours, official))


def test_arms_are_summed_up(tiny_folder, tmp_path):
    stage = bench.Parts(small(tiny_folder, tmp_path, kl=bench.KL, lr=1e-30))
    for arm in bench.measure(stage, ["ours", "official"], repeats=1).values():
        assert arm["seconds"] > 0 and arm["peak_bytes"] > 0 and len(arm["all_seconds"]) == 1
