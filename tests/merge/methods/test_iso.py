"""Isotropic merges: against numpy, and what is known without computing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evomerge.merge.methods import METHODS
from evomerge.testing.methods import plain_inputs
from tests.merge.methods.test_tsv import own, whitened

BOTH = ["iso_c", "iso_cts"]


def directions(matrix):
    return np.linalg.svd(matrix, full_matrices=False)


def of_all(deltas):
    left, values, right = directions(sum(deltas))
    return values.mean() * left @ right


def with_own(deltas, share):
    """Algorithm 1 of the paper, in float64."""
    total, rank = sum(deltas), min(deltas[0].shape)
    each = (rank - int(share * rank)) // len(deltas)
    common = rank - each * len(deltas)
    left, values, right = directions(total)
    parts = [(left[:, :common], values[:common], right[:common])]
    for delta in deltas:
        rest = delta - left[:, :common] @ left[:, :common].T @ delta
        u, s, v = directions(rest)
        parts.append((u[:, :each], s[:each], v[:each]))
    found = whitened(np.concatenate([part[0] for part in parts], 1))
    found = found @ whitened(np.concatenate([part[2] for part in parts], 0))
    return np.concatenate([part[1] for part in parts]).mean() * found


@pytest.mark.parametrize("shape", [(10, 10), (7, 12), (12, 7)])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (0.5, 0.2, -0.4), (0.7, 0.0, 1.0)])
@pytest.mark.parametrize("share", [None, 0.0, 0.35, 0.8])
def test_against_float64(shape, weights, share, merge):
    base, *experts = torch.randn(4, *shape)
    deltas = [
        w * (expert.double() - base.double()).numpy()
        for w, expert in zip(weights, experts, strict=True)
        if w
    ]
    name, given = ("iso_c", {}) if share is None else ("iso_cts", {"common_share": share})
    found = merge(name, [base, *experts], own(weights), **given, **{"lambda": 0.6})
    expected = of_all(deltas) if share is None else with_own(deltas, share)
    assert torch.allclose(
        found.double(), base.double() + 0.6 * torch.from_numpy(expected), atol=1e-5
    )


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("shape", [(10, 10), (5, 12)])
def test_all_singular_values_are_equal(name, shape, merge):
    """Published."""
    base, *experts = torch.randn(4, *shape, dtype=torch.float64)
    found = merge(name, [base, *experts], own([1.0, 0.4, 0.7])) - base
    values = torch.linalg.svdvals(found)
    assert torch.allclose(values, values.mean(), rtol=1e-9)


def test_the_sum_of_the_singular_values_is_kept(merge):
    base, *experts = torch.randn(3, 6, 9, dtype=torch.float64)
    found = merge("iso_c", [base, *experts], own([1.0, 1.0])) - base
    total = sum(experts) - 2 * base
    assert torch.allclose(torch.linalg.svdvals(found).sum(), torch.linalg.svdvals(total).sum())


def test_all_directions_in_common_are_iso_c(merge):
    base, *experts = torch.randn(4, 8, 6)
    weights = own([1.0, 0.4, 0.7])
    found = merge("iso_cts", [base, *experts], weights, common_share=1.0)
    assert torch.allclose(found, merge("iso_c", [base, *experts], weights), atol=1e-5)


@pytest.mark.parametrize("name", BOTH)
def test_matrices_of_a_low_rank_get_no_directions_of_noise(name, merge):
    base = torch.randn(9, 8)
    experts = [base + torch.randn(9, 1) @ torch.randn(1, 8) for _ in range(2)]
    found = (merge(name, [base, *experts], own([1.0, 1.0])) - base).double()
    values = torch.linalg.svdvals(found)
    assert torch.allclose(values[:2], values[0], rtol=1e-4)
    assert values[2] < 1e-5 * values[0]


@pytest.mark.parametrize("name", BOTH)
def test_experts_that_cancel_out_and_that_are_the_base(name, merge):
    base, delta = torch.randn(9, 8).round(decimals=1), 0.5
    cancelled = merge("iso_c", [base, base + delta, base - delta], own([1.0, 1.0]))
    assert torch.allclose(cancelled, base, atol=1e-5)
    assert torch.equal(merge(name, [base, base.clone()], own([1.0])), base)
    one = torch.randn(9, 8)
    found = merge(name, [base, one, base.clone()], own([1.0, 0.0]))
    assert torch.equal(found, merge(name, [base, one], own([1.0])))


@pytest.mark.parametrize("name", BOTH)
def test_the_same_expert_twice_is_one_of_twice_its_weight(name, merge):
    base, one = torch.randn(2, 6, 8, dtype=torch.float64)
    twice = merge("iso_c", [base, one, one.clone()], own([1.0, 0.5]))
    assert torch.allclose(twice, merge("iso_c", [base, one], own([1.5])))
    found = merge(name, [base, one, one.clone()], own([1.0, 0.5]))
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", BOTH)
def test_other_tensors_are_means_of_all_experts(name):
    base, one, other, out = torch.randn(4, 5, 6)
    inputs = plain_inputs(
        METHODS[name], [base, one, out, other], own([1.0, 0.0, 0.5]), {"lambda": 0.8}
    )
    inputs.name = "lm_head.weight"
    expected = base + 0.8 * ((one - base) + 0.5 * (other - base)) / 3
    assert torch.allclose(METHODS[name].merge(inputs), expected, atol=1e-6)


@pytest.mark.parametrize("name", BOTH)
def test_a_factor_of_all_weights_is_a_factor_of_the_result(name, merge):
    base, *experts = torch.randn(3, 6, 7)
    found = merge(name, [base, *experts], own([0.4, 0.8]), **{"lambda": 0.5})
    scaled = merge(name, [base, *experts], own([0.2, 0.4]))
    assert torch.allclose(found, scaled, atol=1e-6)
    negative = merge(name, [base, *experts], own([-0.2, -0.4]))
    assert torch.allclose(base - negative, scaled - base, atol=1e-5)

    def effect(factor, weights):
        inputs = plain_inputs(METHODS[name], [base], own(weights), {"lambda": factor})
        return METHODS[name].effect(inputs.shared, inputs.own, 0)

    assert effect(0.5, [0.4, 0.8]) == effect(1.0, [0.2, 0.4])
    assert effect(0.5, [0.4, 0.0]) != effect(0.5, [0.4, 0.1])


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
@pytest.mark.parametrize("weights", [[0.4, 0.9, 0.2], [0.4, 0.0, -0.7], [0.0, 1.0, 0.0]])
@pytest.mark.parametrize("name", ["w", "lm_head.weight"])
def test_gradients_of_iso_c_are_central_differences(shape, weights, name):
    """In float64, where a weight is 0 as well."""
    method, tensors = METHODS["iso_c"], list(torch.randn(4, *shape, dtype=torch.float64))
    gradient = torch.randn(shape, dtype=torch.float64)

    def inputs(weights, factor=0.7):
        found = plain_inputs(method, tensors, own(weights), {"lambda": factor})
        found.name = name
        return found

    def change(up, down):
        return float(((method.merge(up) - method.merge(down)) * gradient).sum()) / 2e-6

    found = method.gradients(inputs(weights), gradient)
    for place, value in enumerate(found.own["weight"][1:]):
        moved = [list(weights), list(weights)]
        moved[0][place] += 1e-6
        moved[1][place] -= 1e-6
        assert value == pytest.approx(change(*map(inputs, moved)), rel=1e-5, abs=1e-7)
    by_factor = change(inputs(weights, 0.7 + 1e-6), inputs(weights, 0.7 - 1e-6))
    assert found.shared["lambda"] == pytest.approx(by_factor, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0, -1.0]])
def test_a_sum_of_0_has_no_gradients(weights, gradients):
    base, one = torch.zeros(4, 5), torch.randn(4, 5)
    found = gradients("iso_c", torch.ones(4, 5), [base, one, one.clone()], own(weights))
    assert found.own == {"weight": (0.0, 0.0, 0.0)}
    assert found.shared == {"lambda": 0.0}
