"""Losses of items, from the log-likelihoods of what is read."""

from __future__ import annotations

import pytest
import torch

from evomerge.inference.encoding import Reading
from evomerge.inference.loss import Question, item_losses, segment_logsumexp


def reading(tokens=5, targets=2, ends=()):
    return Reading(list(range(tokens)), list(range(targets)), ends, 0, False)


def choices(*right):
    return Question(tuple(reading() for _ in right), right)


def test_a_generated_answer_costs_its_log_likelihood():
    sums = torch.tensor([-3.0, -1.5])
    questions = [Question((reading(),)), Question((reading(),))]
    assert item_losses(sums, questions).tolist() == [3.0, 1.5]


def test_a_rolling_text_costs_its_mean_over_all_windows():
    sums = torch.tensor([-3.0, -1.0])
    assert item_losses(sums, [Question((reading(), reading()), scale=1 / 8)]).tolist() == [0.5]


def test_multiple_choice_is_cross_entropy():
    sums = torch.tensor([-2.0, -9.0, -4.0, -2.0, -900.0, -905.0])
    found = item_losses(
        sums, [choices(False, False, True), Question((reading(),)), choices(False, True)]
    )
    log_softmax = sums[:3].log_softmax(0)
    assert found.tolist() == pytest.approx([-log_softmax[2].item(), 2.0, 5 + 0.006715], rel=1e-5)


def test_several_right_choices_share_the_probability():
    sums = torch.tensor([-2.0, -1.0, -4.0])
    expected = -sums.softmax(0)[[0, 2]].sum().log()
    assert item_losses(sums, [choices(True, False, True)]).item() == pytest.approx(expected.item())


def test_losses_have_gradients_however_unlikely_the_answer():
    sums = torch.tensor([-2000.0, -1.0, -3.0], requires_grad=True)
    losses = item_losses(sums, [choices(True, False), Question((reading(),))])
    losses.sum().backward()
    assert losses.tolist() == [1999.0, 3.0]
    assert sums.grad.tolist() == [-1.0, 1.0, -1.0]


def test_segments():
    values = torch.tensor([1.0, 2.0, -5.0], dtype=torch.float64)
    found = segment_logsumexp(values, torch.tensor([0, 0, 2]), 3)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx([values[:2].logsumexp(0).item(), 0.0, -5.0])


def test_sizes_of_questions():
    question = Question((reading(9, 2), reading(9, 3, ends=(1,))))
    assert question.tokens == 12
    assert question.reads == 6
