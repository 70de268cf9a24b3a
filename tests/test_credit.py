"""Rewards to advantages, and the losses of GRPO: against numbers worked by hand and finite differences."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from janus_r1.train.credit import (
    EPSILON,
    Scored,
    balanced,
    calibrated_credit,
    chain_credit,
    direct_credit,
    drawing_return,
    has_spread,
    judging_return,
    normalised,
    reasoned,
    segment_credit,
    token_weights,
)
from janus_r1.train.policy import clipped_objective, k3
from janus_r1.train.rollout import chain_figures


def scored(rewards, verdicts, p_yes=None) -> Scored:
    return Scored(tuple(rewards), tuple(verdicts), tuple(p_yes or [0.5] * len(rewards)), tuple(rewards))


def test_returns_of_the_paper_by_hand():
    # T = 3: stopped after two rounds, the second counts for the third as well: 0.25 + 2 * 1.
    assert drawing_return([0.25, 1.0], 3) == pytest.approx(2.25)
    assert drawing_return([1.0], 3) == pytest.approx(3.0)
    assert drawing_return([0.1, 0.2, 0.4], 3) == pytest.approx(0.7)
    # No at 0.25 agrees by 0.75, Yes at 1 by 1: 3/2 * 1.75.
    assert judging_return(scored([0.25, 1.0], [0, 1]).agreement, 3) == pytest.approx(2.625)
    assert judging_return(scored([0.25], [1]).agreement, 3) == pytest.approx(0.75)


def test_chain_credit_gives_every_token_of_a_chain_one_advantage():
    group = [scored([1.0], [1]), scored([0.0, 1.0], [0, 1])]
    # R = 3 + 3 against (0 + 2) + 3/2 * 2: mean 5.5, standard deviation 0.5.
    first, second = chain_credit(group, 3, 1.0, 1.0)
    expected = 0.5 / (0.5 + EPSILON)
    assert first.draft == first.word == first.reason == pytest.approx((expected,))
    assert second.draft == pytest.approx((-expected, -expected))
    only_drawing = chain_credit(group, 3, 1.0, 0.0)[0].draft[0]
    assert only_drawing == pytest.approx(0.5 / (0.5 + EPSILON))  # 3 against 2
    assert all(c.idle for c in chain_credit(group, 3, 0.0, 1.0))  # 3 against 3: judged equally well


def test_segment_credit_compares_chains_of_the_same_round():
    group = [scored([1.0], [1]), scored([0.0, 1.0], [0, 1]), scored([0.5, 0.0], [0, 0])]
    credits = segment_credit(group, 3, 1.0, 2.0)
    first = normalised([1.0, 0.0, 0.5])
    assert [c.draft[0] for c in credits] == pytest.approx(first)
    assert [c.draft[1] for c in credits[1:]] == pytest.approx(normalised([1.0, 0.0]))
    assert [c.word[0] for c in credits] == pytest.approx([2 * a for a in normalised([1.0, 1.0, 0.5])])
    assert credits[1].reason == credits[1].word


def test_direct_credit_by_hand():
    group = [scored([1.0], [1], [0.8]), scored([0.0, 1.0], [1, 1], [0.6, 0.9])]
    first, second = direct_credit(group, 3, 1.0, 1.0)
    drafts = normalised([1.0, 0.0, 1.0])  # all drafts of the group have one baseline
    assert (*first.draft, *second.draft) == pytest.approx(tuple(drafts))
    assert first.word == pytest.approx((1 - 0.8,))  # a right Yes, which was expected at 0.8
    assert second.word[0] == pytest.approx(0 - 0.4)  # a wrong Yes; the right word had 0.4
    assert second.reason == pytest.approx((drafts[2], 0.0))  # what was said led to the second draft


def test_true_reasons_are_paid_beside_what_they_lead_to():
    group = [scored([0.0, 1.0], [0, 1]), scored([0.0, 0.0], [0, 0]), scored([1.0], [1])]
    truths = [(1.0, None), (0.0, 0.0), (None,)]
    asked = [dataclasses.replace(chain, reasons=truth) for chain, truth in zip(group, truths, strict=True)]
    plain = direct_credit(group, 2, 1.0, 1.0)
    assert reasoned(plain, group, 0.5) == plain  # nobody asked
    paid = reasoned(plain, asked, 0.5)
    told = normalised([1.0, 0.0, 0.0])
    assert paid[0].reason == pytest.approx((plain[0].reason[0] + 0.5 * told[0], 0.0))
    assert paid[1].reason == pytest.approx((plain[1].reason[0] + 0.5 * told[1], 0.5 * told[2]))
    assert paid[2] == plain[2]
    assert [c.draft for c in paid] == [c.draft for c in plain] and [c.word for c in paid] == [c.word for c in plain]
    assert chain_figures(asked, 2)["reasons_true"] == pytest.approx(1 / 3)
    assert "reasons_true" not in chain_figures(group, 2)


def test_direct_word_credit_is_the_gradient_of_the_expected_agreement():
    """Averaged over the two words, advantage x score function = d E[c] / d logit."""
    for r in (0.0, 0.3, 1.0):
        logit = torch.tensor(0.7, requires_grad=True)
        p = torch.sigmoid(logit)
        (exact,) = torch.autograd.grad(p * r + (1 - p) * (1 - r), logit)
        estimate = 0.0
        q = p.item()
        for verdict, probability, score in ((1, q, 1 - q), (0, 1 - q, -q)):
            credit = direct_credit([scored([r], [verdict], [q])], 1, 0.0, 1.0)[0]
            estimate += probability * credit.word[0] * score
        assert estimate == pytest.approx(exact.item(), abs=1e-6)


def test_calibrated_word_credit_is_the_gradient_of_the_log_score_whichever_word_was_said():
    for r in (0.0, 0.3, 1.0):
        for z in (-1.2, 0.7, 3.0):
            logit = torch.tensor(z, requires_grad=True)
            p = torch.sigmoid(logit)
            (exact,) = torch.autograd.grad(r * p.log() + (1 - r) * (1 - p).log(), logit)
            q = p.item()
            for verdict, score in ((1, 1 - q), (0, -q)):
                credit = calibrated_credit([scored([r], [verdict], [q])], 1, 0.0, 1.0)[0]
                assert credit.word[0] * score == pytest.approx(exact.item(), abs=1e-5)


def test_calibrated_credit_is_bounded_and_else_as_direct():
    group = [scored([1.0], [1], [1.0]), scored([0.0, 1.0], [1, 1], [1.0, 0.9])]
    ours, direct = calibrated_credit(group, 3, 1.0, 1.0), direct_credit(group, 3, 1.0, 1.0)
    assert [(c.draft, c.reason) for c in ours] == [(c.draft, c.reason) for c in direct]
    assert ours[1].word[0] == pytest.approx(-49) and direct[1].word[0] == 0  # surely wrong: direct has nothing to say


@pytest.mark.parametrize("credit", [segment_credit, direct_credit, calibrated_credit])
def test_a_reward_of_weight_zero_moves_nothing_of_its_own(credit):
    group = [scored([1.0], [1], [0.8]), scored([0.0, 1.0], [1, 0], [0.6, 0.9])]
    drawing, judging, both = (credit(group, 3, *weights) for weights in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0)))
    for draw, judge, whole in zip(drawing, judging, both, strict=True):
        assert draw.draft == whole.draft and not any(draw.word)
        assert judge.word == whole.word and not any(judge.draft)
    assert any(any(c.draft) for c in drawing) and any(any(c.word) for c in judging)


def test_judge_threshold_changes_verdicts_alone():
    hard = Scored((0.4, 1.0), (0, 1), (0.5, 0.5), (0.0, 1.0))
    assert hard.agreement == [1.0, 1.0]
    assert drawing_return(hard.rewards, 2) == pytest.approx(1.4)


@pytest.mark.parametrize("credit", [segment_credit, direct_credit])
def test_balanced_verdicts_of_right_and_wrong_drafts_weigh_alike(credit):
    plain = [Scored((r,), (1.0,), (0.5,), (r,)) for r in (0.0, 1.0, 1.0, 1.0)]
    group = balanced(plain)
    assert group[0].counts == pytest.approx((2, 2 / 3))
    assert [c.earned[0] for c in group] == pytest.approx([0, 2 / 3, 2 / 3, 2 / 3])
    assert sum(c.importance[0] for c in group) == pytest.approx(4)  # the reward keeps its scale
    words = [c.word[0] for c in credit(group, 1, 1.0, 1.0)]
    assert sum(words) == pytest.approx(0, abs=1e-6)  # Yes to all four earns nothing; as they come it would
    assert sum(c.word[0] for c in direct_credit(plain, 1, 1.0, 1.0)) == pytest.approx(1)


@pytest.mark.parametrize("r", [0.0, 1.0])
def test_balanced_verdicts_on_drafts_that_are_all_alike_teach_nothing(r):
    group = balanced([Scored((r,), (v,), (0.5,), (r,)) for v in (0.0, 1.0)])
    assert all(c.idle for c in direct_credit(group, 1, 1.0, 1.0))


def test_a_half_right_draft_counts_half_as_each():
    chain = Scored((0.5,), (0.0,), (0.5,), (0.5,), (2.0, 1.0))
    assert chain.importance == [1.5] and chain.earned == [0.75]
    assert judging_return(chain.earned, 1) == pytest.approx(0.75)
    assert chain_credit([chain, Scored((0.5,), (1.0,), (0.5,), (0.0,), (2.0, 1.0))], 1, 0.0, 1.0)[0].word[0] > 0


def test_a_group_without_spread_teaches_no_drawing():
    group = [scored([0.3], [0], [0.5]), scored([0.3], [0], [0.5])]
    assert not has_spread(group)
    assert all(c.idle for c in chain_credit(group, 3, 1.0, 1.0))
    assert [c.draft for c in direct_credit(group, 3, 1.0, 1.0)] == [(0.0,), (0.0,)]
    assert not direct_credit(group, 3, 1.0, 1.0)[0].idle  # its verdicts still do


@pytest.mark.parametrize("name", ["chain", "segment", "direct"])
def test_token_weights_add_up(name):
    draft, word, reason = token_weights(name, drawn=64, said=9, chain_tokens=73)
    assert draft + word + reason == pytest.approx({"chain": 1.0, "segment": 2.0, "direct": 3.0}[name])


# ------------------------------------------------------------------------------------------ losses


def test_clipped_objective_by_hand():
    old = torch.zeros(4)
    now = torch.log(torch.tensor([1.5, 1.5, 0.5, 1.1]))
    advantages = torch.tensor([1.0, -1.0, -1.0, 1.0])
    objective, acted = clipped_objective(now, old, advantages, clip=0.2)
    assert objective.tolist() == pytest.approx([1.2, -1.5, -0.8, 1.1])
    assert acted.tolist() == [True, False, True, False]


def test_gradient_at_ratio_one_is_the_policy_gradient():
    logits = torch.randn(5, dtype=torch.float64, requires_grad=True)
    logprob = logits.log_softmax(-1)[2:3]
    objective, _ = clipped_objective(logprob, logprob.detach(), torch.tensor([0.7]), 0.2)
    (gradient,) = torch.autograd.grad(objective.sum(), logits)
    expected = 0.7 * (torch.eye(5, dtype=torch.float64)[2] - logits.softmax(-1))
    assert torch.allclose(gradient, expected.detach())


def test_losses_against_finite_differences():
    torch.manual_seed(0)
    old, reference = torch.randn(6, dtype=torch.float64) - 2, torch.randn(6, dtype=torch.float64) - 2
    advantages = torch.randn(6, dtype=torch.float64)
    now = (old + 0.05 * torch.randn(6, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: clipped_objective(x, old, advantages, 0.2)[0], now)
    assert torch.autograd.gradcheck(lambda x: k3(x, reference), now)


def test_k3_is_zero_at_home_and_estimates_the_divergence():
    assert k3(torch.tensor([-1.0]), torch.tensor([-1.0])).item() == 0
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.5, 0.25, 0.25])
    estimate = (p * k3(p.log(), q.log())).sum()  # its mean under p
    assert estimate.item() == pytest.approx((p * (p / q).log()).sum().item(), abs=1e-6)


# ----------------------------------------------------------------------------------------- figures


def test_figures_by_hand():
    chains = [
        scored([1.0], [1]),  # right at once
        scored([0.2, 1.0], [0, 1]),  # fixed
        scored([1.0, 0.1], [0, 0]),  # broken: a right draft was refused
        scored([0.3], [1]),  # wrong, accepted
    ]
    figures = chain_figures(chains, limit=3)
    assert figures["first_right"] == 0.5 and figures["final_right"] == 0.5
    assert figures["verdicts_right"] == pytest.approx(4 / 6)
    assert figures["rounds"] == 1.5 and figures["triggered"] == 0.5
    assert figures["fixed"] == 1.0 and figures["broken"] == 1.0
    assert figures["reward_draw"] == pytest.approx(np.mean([3.0, 2.2, 1.2, 0.9]) / 3)
    assert math.isnan(chain_figures(chains[:1], 3)["fixed"])  # nothing to fix: not a zero
