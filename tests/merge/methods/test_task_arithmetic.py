"""The task-arithmetic family, entry by entry."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evomerge.merge.methods import task_arithmetic, task_vectors
from evomerge.merge.methods.tensors import elected_sum, l1_norm, rescaled, weighted_sum

quiet = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
BASE = torch.zeros(4)


def test_task_arithmetic_by_hand(merge):
    base = torch.tensor([1.0, 1.0])
    experts = [torch.tensor([2.0, 1.0]), torch.tensor([1.0, 3.0])]
    own = [{}, {"weight": 0.5}, {"weight": 0.25}]
    tensors = [base, *experts]
    assert torch.equal(merge("task_arithmetic", tensors, own), torch.tensor([1.5, 1.5]))
    doubled = merge("task_arithmetic", tensors, own, **{"lambda": 2.0})
    assert torch.equal(doubled, torch.tensor([2.0, 2.0]))
    normalized = merge("task_arithmetic", tensors, own, normalize=True)
    assert torch.allclose(normalized, 1 + torch.tensor([0.5, 0.5]) / 0.75)


def test_weights_that_sum_to_0_do_not_divide(merge):
    tensors = [BASE, torch.ones(4), 3 * torch.ones(4)]
    own = [{}, {"weight": 1}, {"weight": -1}]
    found = merge("task_arithmetic", tensors, own, normalize=True)
    assert torch.equal(found, torch.full((4,), -2.0))


def test_ties_by_hand(merge):
    """Trim to two of four, elect +, -, +, +; normalise by the weights that agree."""
    one = torch.tensor([4.0, -3.0, 0.1, 0.2])
    two = torch.tensor([-1.0, 0.5, 2.0, 0.1])
    own = [{}, {"weight": 1.0, "density": 0.5}, {"weight": 2.0, "density": 0.5}]
    found = merge("ties", [BASE, one, two], own)
    assert torch.equal(found, torch.tensor([4.0, -3.0, 2.0, 0.0]))


def test_election_by_hand():
    deltas = [torch.tensor([1.0, 1.0, 0.0]), torch.tensor([-1.0, -3.0, 0.0])]
    total, agreeing = elected_sum(deltas, [1.0, 1.0])
    assert torch.equal(total, torch.tensor([1.0, -3.0, 0.0]))  # a sum of 0 elects +
    assert torch.equal(agreeing, torch.tensor([1.0, 1.0, 0.0]))  # exact zeros never agree
    total, agreeing = elected_sum(deltas, [1.0, -1.0])  # the sign is the weighted delta's
    assert torch.equal(total, torch.tensor([2.0, 4.0, 0.0]))
    assert torch.equal(agreeing, torch.tensor([0.0, 0.0, 0.0]))


@quiet
@given(st.floats(0, 1), st.integers(1, 40))
def test_ties_keeps_exactly_floor_of_density_times_n(merge, density, n):
    delta = torch.arange(1.0, n + 1)
    found = merge("ties", [torch.zeros(n), delta], [{}, {"weight": 1.0, "density": density}])
    expected = 0 if density == 0 else max(1, int(density * n))
    assert int((found != 0).sum()) == expected


@pytest.mark.parametrize("method", ["ties", "dare_linear", "dare_ties"])
def test_density_0_is_the_base(method, merge):
    own = [{}, {"weight": 1.0, "density": 0.0}]
    found = merge(method, [BASE + 1, torch.randn(4)], own)
    assert torch.equal(found, BASE + 1)


@quiet
@given(st.floats(0.01, 0.99))
def test_dare_keeps_values_and_rescales_the_norm(merge, density):
    delta = torch.randn(500)
    own = [{}, {"weight": 1.0, "density": density}]
    tensors = [torch.zeros(500), delta]
    plain = merge("dare_linear", tensors, own, rescale=False)
    kept = plain != 0
    assert torch.equal(plain[kept], delta[kept])
    scaled = merge("dare_linear", tensors, own)
    if kept.any():
        assert scaled.abs().sum().item() == pytest.approx(delta.abs().sum().item(), rel=1e-5)


def test_all_but_vanished_norms_are_not_rescaled():
    tiny = torch.full((3,), 1e-9)
    assert torch.equal(rescaled(tiny.clone(), torch.tensor(1.0, dtype=torch.float64)), tiny)
    ones = torch.ones(3)
    assert torch.equal(rescaled(ones.clone(), l1_norm(tiny)), ones)


@quiet
@given(st.lists(st.floats(-2, 2), min_size=1, max_size=6), st.permutations(range(6)))
def test_the_order_of_experts_moves_nothing_but_rounding(merge, weights, order):
    tensors = [torch.randn(20) for _ in range(len(weights) + 1)]
    order = [index for index in order if index < len(weights)]
    for method in ("task_arithmetic", "ties"):
        listed = merge(method, tensors, [{}, *({"weight": w} for w in weights)], normalize=False)
        permuted = merge(
            method,
            [tensors[0], *(tensors[index + 1] for index in order)],
            [{}, *({"weight": weights[index]} for index in order)],
            normalize=False,
        )
        assert torch.allclose(listed, permuted, atol=1e-5)


@quiet
@given(st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=5), st.integers(0, 2**31))
def test_sums_are_rounded_at_each_step_whatever_the_layout(weights, seed):
    """Equal to the bit with one entry at a time: no fused operation, no blocking."""
    generator = torch.Generator().manual_seed(seed)
    deltas = [torch.randn(37, generator=generator) for _ in weights]
    whole = weighted_sum(deltas, weights)
    single = torch.cat(
        [weighted_sum([delta[i : i + 1] for delta in deltas], weights) for i in range(37)]
    )
    assert torch.equal(whole, single)


@pytest.mark.parametrize("name", ["task_arithmetic", "dare_linear", "ties", "dare_ties"])
def test_a_weight_of_0_has_the_gradient_of_a_rising_one(name, merge, gradients):
    tensors = [torch.randn(200, dtype=torch.float64) for _ in range(4)]
    gradient = torch.randn(200, dtype=torch.float64)
    density = {} if name == "task_arithmetic" else {"density": 0.5}

    def own(third):
        return [{}, *({"weight": w, **density} for w in (0.5, 0.7, third))]

    found = gradients(name, gradient, tensors, own(0.0)).own["weight"][3]
    if (
        name == "ties"
    ):  # entries that no other model changes jump at 0: normalised, any weight is all
        gradient = gradient * (merge(name, tensors[:3], own(0.0)[:3]) != tensors[0])
        found = gradients(name, gradient, tensors, own(0.0)).own["weight"][3]
    step = merge(name, tensors, own(1e-7)) - merge(name, tensors, own(0.0))
    assert found == pytest.approx(float((step * gradient).sum()) / 1e-7, rel=1e-5)


@pytest.mark.parametrize("name", ["task_arithmetic", "dare_linear", "ties", "dare_ties"])
@pytest.mark.parametrize("normalize", [False, True])
def test_all_weights_at_0_still_have_gradients(name, normalize, gradients):
    """Where no model has a say, a rising one has it whole: the gradient is along its task vector."""
    base, expert, gradient = torch.zeros(9), torch.randn(9), torch.randn(9)
    found = gradients(name, gradient, [base, expert], [{}, {"weight": 0.0}], normalize=normalize)
    assert found.own["weight"] == pytest.approx((0.0, float(expert @ gradient)), rel=1e-6)
    assert found.shared == {"lambda": 0.0}


def test_elected_gradients_by_hand(gradients):
    """Signs +, -: the first entry belongs to one, the second to two."""
    one, two = torch.tensor([3.0, 1.0]), torch.tensor([-1.0, -4.0])
    gradient = torch.tensor([1.0, 10.0])
    own = [{}, {"weight": 1.0}, {"weight": 1.0}]
    found = gradients("ties", gradient, [torch.zeros(2), one, two], own, normalize=False)
    assert found.own["weight"] == (0.0, 3.0, -40.0)
    assert found.shared["lambda"] == -37.0
    found = gradients("ties", gradient, [torch.zeros(2), one, two], own, **{"lambda": 2.0})
    assert found.own["weight"] == (
        0.0,
        0.0,
        0.0,
    )  # one model an entry: normalised, its weight cancels


@pytest.mark.parametrize("name", ["ties", "dare_ties"])
def test_task_vectors_too_large_to_be_held_are_computed_twice_and_make_the_same(
    name, merge, gradients, monkeypatch
):
    generator = torch.Generator().manual_seed(1)
    tensors = [torch.randn(6, 50, generator=generator) for _ in range(4)]
    own = [{}, *({"weight": weight, "density": 0.4} for weight in (0.3, 0.0, -0.8))]
    gradient = torch.randn(6, 50, generator=generator)
    calls = []
    once = task_arithmetic._sparsified
    monkeypatch.setattr(
        task_arithmetic, "_sparsified", lambda *args: calls.append(args[2]) or once(*args)
    )
    held = merge(name, tensors, own), gradients(name, gradient, tensors, own)
    assert sorted(calls) == [1, 1, 2, 3, 3]  # once for the merge, once for the gradients
    calls.clear()
    monkeypatch.setattr(task_vectors, "HELD", 2 * 300)
    again = merge(name, tensors, own), gradients(name, gradient, tensors, own)
    assert calls.count(2) == 3  # signs, sums, then the gradients: one at a time
    assert torch.equal(held[0], again[0])
    assert held[1] == again[1]
