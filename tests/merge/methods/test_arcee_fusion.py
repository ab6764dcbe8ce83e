"""Entries of outlying importance, against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evomerge.merge.methods import tensors


def reference(base, expert):
    base, expert = (each.double().numpy() for each in (base, expert))

    def softmax(rows):
        shifted = np.exp(rows - rows.max(-1, keepdims=True))
        return shifted / shifted.sum(-1, keepdims=True) + 1e-8

    p, q = softmax(expert), softmax(base)
    importance = np.abs(expert - base) * (p * np.log(p / q)).sum(-1, keepdims=True)
    ordered = np.sort(importance.ravel())
    low, median, high = (ordered[int(q * (len(ordered) - 1))] for q in (0.25, 0.5, 0.75))
    return importance, median + 1.5 * (high - low)


@pytest.mark.parametrize("shape", [(30,), (20, 15), (4, 5, 6), (1, 7), (600, 1000)])
def test_against_float64(shape, merge):
    base = torch.randn(shape)
    expert = base + 0.1 * torch.randn(shape)
    importance, threshold = reference(base, expert)
    found = merge("arcee_fusion", [base, expert], [{}, {}])
    sure = torch.from_numpy(np.abs(importance - threshold) > 1e-6 * threshold)
    expected = torch.where(torch.from_numpy(importance >= threshold), expert, base)
    assert torch.allclose(found[sure], expected[sure], atol=1e-6)
    assert sure.double().mean() > 0.9999


def test_pieces_of_any_size_make_the_same(merge, monkeypatch):
    base, delta = torch.randn(2, 20, 15)
    whole = merge("arcee_fusion", [base, base + 0.1 * delta], [{}, {}])
    monkeypatch.setattr(tensors, "CHUNK", 40)
    assert torch.equal(merge("arcee_fusion", [base, base + 0.1 * delta], [{}, {}]), whole)


def test_equal_models_are_as_they_are(merge):
    one = torch.randn(4, 5)
    assert torch.equal(merge("arcee_fusion", [one, one.clone()], [{}, {}]), one)


def test_rows_of_one_number_have_no_divergence_and_are_taken_over(merge):
    """All importances are 0 and so is the threshold, which they reach, as in mergekit."""
    base, expert = torch.randn(2, 6, 1)
    assert torch.allclose(merge("arcee_fusion", [base, expert], [{}, {}]), expert, atol=1e-6)
