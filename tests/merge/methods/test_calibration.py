"""Singular-value calibration of any method of task vectors: against numpy, and what is known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evomerge.merge.methods import METHODS
from evomerge.testing.methods import MethodSuite, plain_inputs

CALIBRATED = [name for name, method in METHODS.items() if "calibrate" in method.parameters]


def reference(base, experts, merged):
    """The published factors, direction by direction, in float64."""
    base = base.double().numpy()
    deltas = [expert.double().numpy() - base for expert in experts]
    total = merged.double().numpy() - base
    left, values, right = np.linalg.svd(total, full_matrices=False)
    for r in range(len(values)):
        along = left[:, r] @ total
        shares = [left[:, r] @ delta for delta in deltas]
        excess = [max(1.0, (along @ one) / (one @ one)) for one in shares]
        values[r] *= len(deltas) / sum(excess)
    return torch.from_numpy(base + (left * values) @ right)


def tensors_of(method, count=3, shape=(6, 8)):
    base, *others = torch.randn(count + 1, *shape)
    common = torch.randn(shape)  # what all experts learnt, so that there is something to shrink
    own = [{}] * (count + 1)
    if "weight" in method.parameters:
        own = [{}, *({"weight": 0.9 + 0.2 * index} for index in range(count))]
    return [base, *(base + 0.3 * other + common for other in others)], own


def test_every_method_of_task_vectors_of_several_experts_has_the_switch():
    expected = {
        n for n, m in METHODS.items() if m.needs_base and m.reads_deltas and not m.max_models
    }
    assert set(CALIBRATED) == expected


@pytest.mark.parametrize("name", CALIBRATED)
def test_against_float64(name, merge):
    tensors, own = tensors_of(METHODS[name])
    plain = merge(name, tensors, own)
    found = merge(name, tensors, own, calibrate=True)
    assert torch.allclose(found.double(), reference(tensors[0], tensors[1:], plain), atol=1e-5)
    assert not torch.allclose(found, plain, atol=1e-3) or name in ("iso_c", "iso_cts", "regmean")


def test_the_same_expert_several_times_is_one(merge):
    """γ of three equal task vectors is 1/3."""
    base, one = torch.randn(2, 6, 8)
    own = [{}, *[{"weight": 1.0}] * 3]
    found = merge("task_arithmetic", [base, one, one.clone(), one.clone()], own, calibrate=True)
    assert torch.allclose(found, one, atol=1e-5)


def test_experts_that_do_not_interfere_stay(merge):
    base, one, other = torch.randn(8, 8), torch.zeros(8, 8), torch.zeros(8, 8)
    one[:4, :4], other[4:, 4:] = torch.randn(2, 4, 4)
    own = [{}, {"weight": 1.0}, {"weight": 1.0}]
    tensors = [base, base + one, base + other]
    found = merge("task_arithmetic", tensors, own, calibrate=True)
    assert torch.allclose(found, merge("task_arithmetic", tensors, own), atol=1e-5)


def test_an_expert_of_weight_0_does_not_count(merge):
    base, one, other = torch.randn(3, 5, 7)
    both = [{}, {"weight": 1.4}, {"weight": 0.0}]
    found = merge("task_arithmetic", [base, one, other], both, calibrate=True)
    alone = merge("task_arithmetic", [base, one], both[:2], calibrate=True)
    assert torch.allclose(found, alone, atol=1e-6)
    assert torch.allclose(alone, one, atol=1e-5)  # a single expert is never longer than it is
    none = merge("task_arithmetic", [base, one], [{}, {"weight": 0.0}], calibrate=True)
    assert torch.equal(none, base)


@pytest.mark.parametrize("name", ["lm_head.weight", "norm"])
def test_other_tensors_are_left_as_they_are(name):
    method = METHODS["ties"]
    tensors, own = tensors_of(method)
    if name == "norm":
        tensors = [tensor.reshape(-1) for tensor in tensors]
    found = []
    for calibrate in (False, True):
        inputs = plain_inputs(method, tensors, own, {"calibrate": calibrate})
        inputs.name = name
        found.append(method.merge(inputs))
    assert torch.equal(*found)


@pytest.mark.parametrize("shape", [(6, 8), (8, 6)])
def test_gradients_hold_directions_and_factors(shape):
    """Of ⟨g, D - U (1 - γ) Uᵀ D⟩ with U and γ fixed, against small steps of D alone."""
    method, plain = METHODS["task_arithmetic"], METHODS["dare_linear"]
    tensors, own = tensors_of(method, shape=shape)
    tensors = [tensor.double() for tensor in tensors]
    gradient = torch.randn(shape, dtype=torch.float64)
    found = method.gradients(plain_inputs(method, tensors, own, {"calibrate": True}), gradient)
    total = plain.merge(plain_inputs(plain, tensors, own, {})) - tensors[0]
    shrunk = method.merge(plain_inputs(method, tensors, own, {"calibrate": True})) - tensors[0]
    left = torch.linalg.svd(total, full_matrices=False)[0]
    gamma = (left.T @ shrunk).norm(dim=1) / (left.T @ total).norm(dim=1)
    assert gamma.min() < 0.9
    for index, tensor in enumerate(tensors[1:], 1):
        delta = tensor - tensors[0]
        moved = delta - left @ ((1 - gamma)[:, None] * (left.T @ delta))
        assert found.own["weight"][index] == pytest.approx(float((moved * gradient).sum()))
    assert found.shared["lambda"] == pytest.approx(float((shrunk * gradient).sum()))


def test_a_calibrated_merge_is_another_merge():
    for name in CALIBRATED:
        method = METHODS[name]
        tensors, own = tensors_of(method)
        effects = []
        for calibrate in (False, True):
            inputs = plain_inputs(method, tensors, own, {"calibrate": calibrate})
            effects.append(method.effect(inputs.shared, inputs.own, inputs.base))
        assert effects[0] != effects[1]
        assert effects[0].parts == effects[1].parts


@pytest.mark.parametrize("name", ["task_arithmetic", "ties", "tsv"])
def test_memory_and_threads_with_calibration(name, monkeypatch):
    """As the shared suite tests every method without it."""
    method = METHODS[name]
    own = [{"weight": 0.3 + 0.2 * index} for index in range(4)]
    given = {"calibrate": True}
    MethodSuite().test_memory_is_what_is_stated(True, method, given, own, monkeypatch)
    tensors = torch.randn(4, 60, 90)
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(method.merge(plain_inputs(method, tensors, own, given)))
    finally:
        torch.set_num_threads(1)
    assert torch.equal(*found)
