"""Divergences from a teacher, against torch's own on all tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import kl_div

from evomerge.candidate.trial import Target
from evomerge.inference.divergence import (
    LIKELIEST,
    WHOLE_VOCABULARY,
    cut,
    divergences,
    joined,
    told,
)

TOKENS = 300


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return 4 * torch.randn(2, 5, TOKENS, generator=generator, dtype=torch.float64)


def full(teacher, student):
    """The divergence of what half precision keeps of a teacher, by torch."""
    kept = teacher.log_softmax(1).half().double().log_softmax(1)
    found = kl_div(student.log_softmax(1), kept, log_target=True, reduction="none")
    return found.sum(1)


def test_of_a_small_vocabulary_all_is_told(logits):
    teacher, student = logits
    target = told(teacher.log_softmax(1))
    assert target.logprobs.shape == (5, TOKENS)
    assert target.logprobs.dtype == np.float16
    assert (target.tokens, target.rest) == (None, None)
    rows = torch.tensor([3, 0])
    found = divergences(student.log_softmax(1), rows, Target(target.logprobs[[3, 0]]))
    expected = full(teacher, student)[rows]
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-9)
    assert expected.tolist() == pytest.approx(
        kl_div(student.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="none")
        .sum(1)[rows]
        .tolist(),
        rel=2e-3,
    )


def test_of_a_large_one_the_likeliest_and_what_the_others_share():
    logprobs = torch.randn(3, WHOLE_VOCABULARY + 1).log_softmax(1)
    target = told(logprobs)
    assert target.tokens.shape == (3, LIKELIEST)
    assert target.tokens.dtype == np.int32
    assert (target.tokens == logprobs.topk(LIKELIEST).indices.numpy()).all()
    shares = np.exp(target.logprobs.astype(float)).sum(1) + np.exp(target.rest.astype(float))
    assert shares.tolist() == pytest.approx([1.0] * 3, abs=3e-3)


def test_the_others_count_as_one_outcome(logits):
    teacher, student = logits
    target = told(teacher.log_softmax(1), whole=0, likeliest=7)
    found = divergences(student.log_softmax(1), torch.arange(5), target)
    for row in range(5):
        tokens = target.tokens[row].tolist()
        p = np.exp(np.append(target.logprobs[row], target.rest[row]).astype(float))
        q = student[row].softmax(0)
        q = np.append(q[tokens].numpy(), q.sum() - q[tokens].sum())
        p /= p.sum()
        assert found[row].item() == pytest.approx(float((p * np.log(p / q)).sum()), rel=1e-6)


@pytest.mark.parametrize("likeliest", [1, 7, 64, 299])
def test_fewer_tokens_give_a_lower_bound(logits, likeliest):
    teacher, student = (each.log_softmax(1) for each in logits)
    rows = torch.arange(5)
    found = divergences(student, rows, told(teacher, whole=0, likeliest=likeliest))
    more = divergences(student, rows, told(teacher, whole=0, likeliest=likeliest + 1))
    assert bool((found < more + 2e-3 * more).all())
    assert bool((found < full(*logits) * (1.002)).all())
    assert bool((found >= 0).all())


def test_all_tokens_by_name_are_all_tokens(logits):
    teacher, student = (each.log_softmax(1).requires_grad_(True) for each in logits)
    whole = told(teacher)
    order = teacher.detach().argsort(1, descending=True).numpy().astype(np.int32)
    named = Target(
        np.take_along_axis(whole.logprobs, order.astype(np.int64), 1),
        order,
        np.full(5, np.finfo(np.float16).min),
    )
    values, gradients = [], []
    for target in (whole, named):
        value = divergences(student, torch.arange(5), target)
        values.append(value.tolist())
        gradients.append(torch.autograd.grad(value.sum(), student)[0])
    assert values[0] == pytest.approx(values[1], rel=1e-12)
    assert torch.allclose(*gradients, rtol=1e-12, atol=0)


@pytest.mark.parametrize("likeliest", [7, TOKENS])
def test_its_gradient_is_that_of_central_differences(logits, likeliest):
    teacher, student = logits
    target = told(teacher.log_softmax(1), whole=0, likeliest=likeliest)
    rows = torch.tensor([4, 0, 1, 1, 2])
    student = student.requires_grad_(True)

    def run(values):
        return divergences(values.log_softmax(1), rows, target)

    assert torch.autograd.gradcheck(run, student)


def test_a_module_that_is_sure_of_what_is_told_has_a_finite_divergence():
    """The others' share, 1e-20 here, is lost where it is computed as 1 - Σ q."""
    student = torch.zeros(1, 8)
    student[0, 0] = 46.0
    student.requires_grad_(True)
    target = Target(*(np.log(np.array(each, np.float16)) for each in ([[0.5]],)))
    target = Target(target.logprobs, np.array([[0]], np.int32), np.log(np.array([0.5], np.float16)))
    value = divergences(student.log_softmax(1), torch.arange(1), target)
    expected = 0.5 * np.log(0.5) * 2 + 0.5 * (46 - np.log(7))
    assert value.item() == pytest.approx(expected, rel=1e-3)
    value.backward()
    assert student.grad[0, 0].item() == pytest.approx(0.5, rel=1e-3)
    assert student.grad[0, 1:].tolist() == pytest.approx([-0.5 / 7] * 7, rel=1e-3)


def test_what_a_teacher_rules_out_costs_nothing():
    teacher = torch.tensor([[0.0, -1e6, -torch.inf]]).log_softmax(1)
    student = torch.tensor([[0.0, 1.0, 2.0]], requires_grad=True)
    target = told(teacher)
    assert np.isfinite(target.logprobs).all()
    value = divergences(student.log_softmax(1), torch.arange(1), target)
    assert value.item() == pytest.approx(-student.log_softmax(1)[0, 0].item())
    value.backward()
    assert bool(student.grad.isfinite().all())


@pytest.mark.parametrize("whole", [0, TOKENS])
def test_targets_are_cut_as_they_were_joined(logits, whole):
    first = told(logits[0].log_softmax(1), whole, 4)
    second = told(logits[1, :2].log_softmax(1), whole, 4)
    for part, back in zip((first, second), cut(joined([first, second]), (5, 2)), strict=True):
        for name in ("logprobs", "tokens", "rest"):
            assert np.array_equal(getattr(part, name), getattr(back, name))
            assert type(getattr(part, name)) is type(getattr(back, name))
