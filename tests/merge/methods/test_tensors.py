"""Sums over whole tensors."""

from __future__ import annotations

import pytest
import torch

from evomerge.merge.methods import tensors
from evomerge.merge.methods.tensors import cosine, dot, inner, l1_norm


def test_l1_norm():
    norm = l1_norm(torch.tensor([[1.0, -2.0], [0.0, 3.0]]))
    assert norm.dtype == torch.float64
    assert norm.item() == 6


def test_dot_is_summed_in_float64_over_all_pieces(monkeypatch):
    a, b = torch.randn(1000), torch.randn(1000)
    expected = float(a.double() @ b.double())
    assert dot(a, b) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr(tensors, "CHUNK", 7)
    assert dot(a.view(10, 100).T, b.view(10, 100).T) == pytest.approx(expected, rel=1e-12)
    assert dot(torch.empty(0), torch.empty(0)) == 0


def test_cosine():
    a = torch.randn(50)
    assert cosine(a, 3 * a) == pytest.approx(1, abs=1e-6)
    assert cosine(a, -a) >= -1
    assert cosine(a, torch.zeros(50)) == 0


def test_inner_product_over_all_pieces(monkeypatch):
    a, b = torch.randn(1000), torch.randn(1000)
    expected = float(a.double() @ b.double())
    assert inner(a, b) == pytest.approx(expected, rel=1e-5)
    monkeypatch.setattr(tensors, "PIECES", {"cpu": 7})
    assert inner(a.view(10, 100).T, b.view(10, 100).T) == pytest.approx(expected, rel=1e-5)
    assert inner(a.double(), b.double()) == pytest.approx(expected, rel=1e-12)
    assert inner(torch.empty(0), torch.empty(0)) == 0
