"""Regression of the experts' layers: against float64, and what is known without computing."""

from __future__ import annotations

import pytest
import torch

from evomerge.errors import MergeError
from evomerge.merge.methods import METHODS
from evomerge.testing.methods import plain_inputs

EYE = torch.eye


def reference(base, experts, weights, moments=None, *, ridge=0.01, off_diagonal=1.0, factor=1.0):
    """The published formula, by an explicit inverse in float64."""
    base = base.double()
    deltas = [expert.double() - base for expert in experts]
    if moments is None:
        moments = [delta.T @ delta / delta.square().sum() for delta in deltas]
    moments = [
        off_diagonal * one.double() + (1 - off_diagonal) * torch.diag(one.double().diag())
        for one in moments
    ]
    total = sum(weight * one for weight, one in zip(weights, moments, strict=True))
    size = len(total)
    ridge = max(ridge, 1e-6) * float(total.trace()) / size
    prior = sum(w * delta for w, delta in zip(weights, deltas, strict=True)) / sum(weights)
    answers = sum(w * delta @ one for w, delta, one in zip(weights, deltas, moments, strict=True))
    inverse = torch.linalg.inv(total + ridge * EYE(size, dtype=torch.float64))
    return base + factor * (answers + ridge * prior) @ inverse


def family(count, shape=(9, 6)):
    base, *experts = torch.randn(count + 1, *shape)
    return base, [base + 0.1 * expert for expert in experts]


def own(weights):
    return [{}, *({"weight": weight} for weight in weights)]


def with_moments(tensors, weights, moments, **shared):
    inputs = plain_inputs(
        METHODS["regmean"], tensors, own(weights), {"activations": True, **shared}
    )
    inputs.moment = lambda index, merged: moments[index - 1]
    return inputs


def psd(size):
    found = torch.randn(size + 4, size)
    return found.T @ found / size


@pytest.mark.parametrize("ridge", [0.0, 0.003, 1.0])
@pytest.mark.parametrize("off_diagonal", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("shape", [(9, 6), (4, 11)])
def test_against_float64(ridge, off_diagonal, shape, merge):
    base, experts = family(3, shape)
    weights = [0.5, 1.0, 0.2]
    shared = {"ridge": ridge, "off_diagonal": off_diagonal, "lambda": 0.8}
    found = merge("regmean", [base, *experts], own(weights), **shared)
    expected = reference(base, experts, weights, ridge=ridge, off_diagonal=off_diagonal, factor=0.8)
    assert torch.allclose(found.double(), expected, atol=1e-6)


@pytest.mark.parametrize("off_diagonal", [0.5, 1.0])
def test_with_activations(off_diagonal):
    base, experts = family(3)
    weights, moments = [0.5, 1.0, 0.2], [psd(6) for _ in range(3)]
    inputs = with_moments([base, *experts], weights, moments, off_diagonal=off_diagonal)
    found = METHODS["regmean"].merge(inputs)
    expected = reference(base, experts, weights, moments, off_diagonal=off_diagonal)
    assert torch.allclose(found.double(), expected, atol=1e-6)


def test_it_is_the_least_squares_answer_to_the_experts_own():
    """No other matrix answers the experts' inputs with a smaller weighted squared error (RegMean, eq. 2)."""
    base, experts = torch.zeros(4, 6), list(torch.randn(2, 4, 6))
    xs = [torch.randn(30, 6), torch.randn(30, 6) * torch.linspace(0.1, 2, 6)]
    moments = [x.T @ x / 30 for x in xs]
    inputs = with_moments([base, *experts], [1.0, 1.0], moments, ridge=0.0)
    found = METHODS["regmean"].merge(inputs).double()
    stacked = torch.cat(xs).double()
    answers = torch.cat([x.double() @ w.double().T for x, w in zip(xs, experts, strict=True)])
    expected = torch.linalg.lstsq(stacked, answers).solution.T
    assert torch.allclose(found, expected, atol=1e-4)


def test_equal_moments_leave_the_weighted_mean(merge):
    """Published; here of experts whose task vectors are turned by orthogonal matrices, and by activations."""
    base, delta = torch.randn(2, 8, 5)
    turns = [torch.linalg.qr(torch.randn(8, 8)).Q for _ in range(3)]
    experts, weights = [base + turn @ delta for turn in turns], [0.2, 0.5, 1.3]
    mean = sum(w * one for w, one in zip(weights, experts, strict=True)) / sum(weights)
    found = merge("regmean", [base, *experts], own(weights), ridge=0.05)
    assert torch.allclose(found, mean, atol=1e-5)
    inputs = with_moments([base, *experts], weights, [psd(5)] * 3)
    assert not torch.allclose(METHODS["regmean"].merge(inputs), base, atol=0.1)
    assert torch.allclose(METHODS["regmean"].merge(inputs), mean, atol=1e-5)


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_one_expert_is_itself(ridge, merge):
    base, (one, other) = family(2)
    assert torch.allclose(merge("regmean", [base, one], own([1.0]), ridge=ridge), one, atol=1e-7)
    alone = merge("regmean", [base, one, other], own([0.3, 0.0]), ridge=ridge)
    assert torch.allclose(alone, one, atol=1e-7)
    twice = merge("regmean", [base, one, one.clone()], own([0.3, 0.9]), ridge=ridge)
    assert torch.allclose(twice, one, atol=1e-6)


def test_experts_of_unlike_inputs_keep_their_answers(merge):
    """Each task vector answers to columns of its own: at a small ridge none of them is averaged away."""
    base, one, other = torch.randn(3, 8, 6)
    one[:, 3:], other[:, :3] = 0, 0
    found = merge("regmean", [base, base + one, base + other], own([1.0, 1.0]), ridge=0.0)
    assert torch.allclose(found, base + one + other, atol=1e-4)
    pulled = merge("regmean", [base, base + one, base + other], own([1.0, 1.0]), ridge=1e6)
    assert torch.allclose(pulled, base + (one + other) / 2, atol=1e-4)


def test_a_singular_sum_has_the_limit_of_a_vanishing_ridge(merge):
    """Task vectors of rank 1, and inputs that never show two of the columns."""
    base, experts = torch.randn(7, 6), []
    for _ in range(2):
        experts.append(base + torch.randn(7, 1) @ torch.randn(1, 6))
    found = merge("regmean", [base, *experts], own([1.0, 0.5]), ridge=0.0).double()
    deltas = [one.double() - base.double() for one in experts]
    moments = [delta.T @ delta / delta.square().sum() for delta in deltas]
    total = moments[0] + 0.5 * moments[1]
    answers = deltas[0] @ moments[0] + 0.5 * deltas[1] @ moments[1]
    expected = base + answers @ torch.linalg.pinv(total, rtol=1e-5)
    assert torch.allclose(found, expected, atol=1e-3)
    seen = torch.zeros(6, 6)
    seen[:4, :4] = psd(4)
    inputs = with_moments([base, *experts], [1.0, 1.0], [seen, seen], ridge=0.0)
    found = METHODS["regmean"].merge(inputs)
    assert torch.allclose(found[:, 4:], (experts[0] + experts[1])[:, 4:] / 2, atol=1e-5)


def test_nothing_to_regress_on_is_the_mean(merge):
    """Experts that equal the base, and a layer that never gets anything but zeros."""
    base, (one, other) = family(2)
    assert torch.equal(merge("regmean", [base, base, base.clone()], own([1.0, 1.0])), base)
    inputs = with_moments([base, one, other], [1.0, 1.0], [torch.zeros(6, 6)] * 2)
    assert torch.allclose(METHODS["regmean"].merge(inputs), (one + other) / 2, atol=1e-6)
    found = merge("regmean", [base, one, base.clone()], own([1.0, 1.0]), ridge=0.0)
    assert torch.allclose(found, one, atol=1e-4)


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "lm_head.weight"])
def test_other_tensors_are_weighted_means(name, merge):
    base, (one, other) = family(2)
    inputs = plain_inputs(METHODS["regmean"], [base, one, other], own([1.0, 3.0]), {"lambda": 0.5})
    inputs.name = name
    expected = base + 0.5 * (0.25 * (one - base) + 0.75 * (other - base))
    assert torch.allclose(METHODS["regmean"].merge(inputs), expected, atol=1e-6)
    flat = [tensor.reshape(-1) for tensor in (base, one, other)]
    found = merge("regmean", flat, own([1.0, 3.0]), **{"lambda": 0.5})
    assert torch.allclose(found, expected.reshape(-1), atol=1e-6)


def test_moments_in_a_merge_are_read_where_they_are_asked_for():
    base, experts = family(2)
    of_merge, alone = [psd(6), psd(6)], [psd(6), psd(6)]
    for shared, read in (({"merged_features": True}, of_merge), ({"activations": True}, alone)):
        inputs = plain_inputs(METHODS["regmean"], [base, *experts], own([1.0, 0.5]), shared)
        inputs.moment = lambda index, merged: (of_merge if merged else alone)[index - 1]
        expected = reference(base, experts, [1.0, 0.5], read)
        assert torch.allclose(METHODS["regmean"].merge(inputs).double(), expected, atol=1e-5)


def test_moments_that_are_none_are_one_error():
    base, (one, other) = family(2)
    broken = torch.diag(torch.tensor([5.0, 1.0, 1.0, 1.0, 1.0, -1.0]))
    inputs = with_moments([base, one, other], [1.0, 1.0], [broken] * 2, ridge=0.001)
    with pytest.raises(MergeError) as caught:
        METHODS["regmean"].merge(inputs)
    assert "w: the sum of the experts' second moments is not positive definite" in str(caught.value)
    assert "with a ridge of 0.001; raise the ridge" in str(caught.value)


@pytest.mark.parametrize("name", ["w", "lm_head.weight"])
@pytest.mark.parametrize("of", [None, "activations", "merged_features"])
@pytest.mark.parametrize("weights", [[0.4, 0.9, 0.2], [0.4, 0.0, 1.0], [0.0, 1.0, 0.0]])
@pytest.mark.parametrize("shared", [{"ridge": 0.0}, {"ridge": 0.3, "off_diagonal": 0.4}])
def test_gradients_are_central_differences(name, of, weights, shared):
    """In float64, where weights are 0 as well, which then go below 0."""
    method = METHODS["regmean"]
    base, *experts = torch.randn(4, 6, 5, dtype=torch.float64)
    gradient = torch.randn(6, 5, dtype=torch.float64)
    moments = [psd(5).double() for _ in experts]

    def inputs(weights, factor=0.7):
        given = {"lambda": factor, **({of: True} if of else {}), **shared}
        found = plain_inputs(method, [base, *experts], own(weights), given)
        found.moment, found.name = (lambda index, merged: moments[index - 1]), name
        return found

    def change(step, up, down):
        difference = method.merge(up) - method.merge(down)
        return float((difference * gradient).sum()) / (2 * step)

    found = method.gradients(inputs(weights), gradient)
    assert found.own["weight"][0] == 0
    for place, value in enumerate(found.own["weight"][1:]):
        moved = [list(weights), list(weights)]
        moved[0][place] += 1e-6
        moved[1][place] -= 1e-6
        assert value == pytest.approx(change(1e-6, *map(inputs, moved)), rel=1e-5, abs=1e-7)
    by_factor = change(1e-6, inputs(weights, 0.7 + 1e-6), inputs(weights, 0.7 - 1e-6))
    assert found.shared["lambda"] == pytest.approx(by_factor, rel=1e-5, abs=1e-7)


def test_weights_of_0_leave_the_base_and_have_no_gradients(gradients, merge):
    base, experts = family(2)
    assert torch.equal(merge("regmean", [base, *experts], own([0.0, 0.0])), base)
    found = gradients("regmean", torch.ones(9, 6), [base, *experts], own([0.0, 0.0]))
    assert found.own == {"weight": (0.0, 0.0, 0.0)}
    assert found.shared == {"lambda": 0.0}


def test_only_the_ratios_of_weights_count(merge):
    base, experts = family(3)
    found = [
        merge("regmean", [base, *experts], own([factor * w for w in (0.2, 0.4, 1.0)]))
        for factor in (1.0, 3.0)
    ]
    assert torch.allclose(found[0], found[1], atol=1e-6)
    effects = []
    for factor, ridge in ((1.0, 0.0), (3.0, 1e-7), (1.0, 0.1)):
        weights = own([factor * w for w in (0.2, 0.4, 1.0)])
        inputs = plain_inputs(METHODS["regmean"], [base], weights, {"ridge": ridge})
        effects.append(METHODS["regmean"].effect(inputs.shared, inputs.own, 0))
    assert effects[0] == effects[1]
    assert effects[0] != effects[2]
