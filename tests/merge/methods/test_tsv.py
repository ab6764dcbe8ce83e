"""Task singular vectors: against numpy, and what is known without computing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evomerge.merge.methods import METHODS
from evomerge.testing.methods import plain_inputs


def whitened(matrix):
    """The nearest matrix of orthonormal columns or rows, by its own singular vectors."""
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return left @ right


def reference(base, experts, weights, share=None, factor=1.0):
    """The published algorithm in float64: truncate, put side by side, make orthogonal, multiply."""
    deltas = [(expert.double() - base.double()).numpy() for expert in experts]
    rank = min(base.shape)
    kept = rank // len(deltas) if share is None else int(share * rank)
    parts = [np.linalg.svd(delta, full_matrices=False) for delta in deltas]
    left = whitened(np.concatenate([part[0][:, :kept] for part in parts], 1))
    right = whitened(np.concatenate([part[2][:kept] for part in parts], 0))
    values = np.concatenate([w * part[1][:kept] for w, part in zip(weights, parts, strict=True)])
    return base.double() + factor * torch.from_numpy(left @ np.diag(values) @ right)


def own(weights):
    return [{}, *({"weight": weight} for weight in weights)]


@pytest.mark.parametrize("shape", [(9, 9), (7, 12), (12, 7)])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, 0.0, -0.4)])
@pytest.mark.parametrize("share", [None, 0.2])
def test_against_float64(shape, weights, share, merge):
    base, *experts = torch.randn(4, *shape)
    given = {} if share is None else {"rank_share": share}
    found = merge("tsv", [base, *experts], own(weights), **given, **{"lambda": 0.7})
    expected = reference(base, experts, weights, share, 0.7)
    assert torch.allclose(found.double(), expected, atol=1e-5)


def test_one_expert_is_itself(merge):
    """Published."""
    base, one = torch.randn(2, 6, 9)
    assert torch.allclose(merge("tsv", [base, one], own([1.0])), one, atol=1e-5)
    half = merge("tsv", [base, one], own([0.5]))
    assert torch.allclose(half, base + 0.5 * (one - base), atol=1e-5)


def test_experts_that_do_not_interfere_are_added(merge):
    """Their singular vectors are orthogonal as they are."""
    base, one, other = torch.randn(2, 8, 8)[0], torch.zeros(8, 8), torch.zeros(8, 8)
    one[:4, :4], other[4:, 4:] = torch.randn(2, 4, 4)
    found = merge("tsv", [base, base + one, base + other], own([1.0, 0.5]))
    assert torch.allclose(found, base + one + 0.5 * other, atol=1e-5)


def test_the_same_expert_twice_is_one_expert(merge):
    """Each keeps half of every direction that both have."""
    base, one = torch.randn(2, 8, 6)
    tensors = [base, one, one.clone()]
    whole = merge("tsv", tensors, own([1.0, 1.0]), rank_share=1.0)
    assert torch.allclose(whole, one, atol=1e-5)
    left, values, right = torch.linalg.svd((one - base).double(), full_matrices=False)
    largest = (left[:, :3] * values[:3]) @ right[:3]
    found = merge("tsv", tensors, own([1.0, 1.0])).double()
    assert torch.allclose(found, base.double() + largest, atol=1e-5)


def test_an_expert_that_is_the_base_adds_nothing_and_takes_no_directions(merge):
    base, one = torch.randn(2, 6, 6)
    found = merge("tsv", [base, one, base.clone()], own([1.0, 1.0]), rank_share=1.0)
    assert torch.allclose(found, one, atol=1e-5)
    assert torch.equal(merge("tsv", [base, base.clone()], own([1.0])), base)


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "lm_head.weight", "norm"])
def test_other_tensors_are_means(name):
    base, one, other = torch.randn(3, 4, 5)
    tensors = [base, one, other]
    if name == "norm":
        base, one, other = tensors = [tensor.reshape(-1) for tensor in tensors]
    inputs = plain_inputs(METHODS["tsv"], tensors, own([1.0, 0.5]), {"lambda": 0.8})
    inputs.name = name
    expected = base + 0.8 * ((one - base) + 0.5 * (other - base)) / 2
    assert torch.allclose(METHODS["tsv"].merge(inputs), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["w", "lm_head.weight"])
def test_gradients_are_exact_where_a_weight_is_0(name):
    """The merge is linear in the weights: a whole step is as good as a small one."""
    method, tensors = METHODS["tsv"], list(torch.randn(4, 6, 5, dtype=torch.float64))
    gradient = torch.randn(6, 5, dtype=torch.float64)

    def inputs(weights, factor=0.7):
        found = plain_inputs(method, tensors, own(weights), {"lambda": factor})
        found.name = name
        return found

    found = method.gradients(inputs([0.0, 1.0, 0.0]), gradient)
    for place in range(3):
        moved = [0.0, 1.0, 0.0]
        moved[place] += 1.0
        step = method.merge(inputs(moved)) - method.merge(inputs([0.0, 1.0, 0.0]))
        assert found.own["weight"][place + 1] == pytest.approx(float((step * gradient).sum()))
    step = method.merge(inputs([0.0, 1.0, 0.0], 1.7)) - method.merge(inputs([0.0, 1.0, 0.0]))
    assert found.shared["lambda"] == pytest.approx(float((step * gradient).sum()))


def test_lambda_times_weight_is_what_counts():
    def effect(factor, weights, share=None):
        shared = {"lambda": factor} | ({} if share is None else {"rank_share": share})
        inputs = plain_inputs(METHODS["tsv"], [torch.zeros(2)], own(weights), shared)
        return METHODS["tsv"].effect(inputs.shared, inputs.own, 0)

    assert effect(0.5, [1.0, 0.4]) == effect(1.0, [0.5, 0.2])
    assert effect(0.5, [1.0, 0.0]) != effect(0.5, [1.0, 0.1])
    assert effect(0.5, [0.0, 0.0]) == effect(0.0, [1.0, 0.4])
    assert effect(0.5, [1.0, 0.4], 0.5) != effect(0.5, [1.0, 0.4])
