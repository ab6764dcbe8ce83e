"""Core space: the same as without it where the method is linear, and the published one where it is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evomerge.errors import MergeError
from evomerge.merge.methods import METHODS
from evomerge.merge.methods.core_space import CORE_SPACE
from evomerge.merge.methods.low_rank import Factors
from evomerge.testing.inputs import PlainInputs, plain_inputs

ROWS, COLUMNS, RANKS = 24, 30, (2, 3, 1)
TAKES = [name for name, one in METHODS.items() if CORE_SPACE in one.parameters]


def factors() -> list[Factors]:
    generator = torch.Generator().manual_seed(3)
    return [
        Factors(
            torch.randn(ROWS, rank, generator=generator),
            torch.randn(rank, COLUMNS, generator=generator),
            0.5,
        )
        for rank in RANKS
    ]


def inputs(method: str, count: int = 3, core: bool = True, **shared: float) -> PlainInputs:
    takes = METHODS[method].parameters
    base = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(8))
    updates = factors()[:count]
    own = [
        {
            name: value
            for name, value in {"weight": 0.4 + 0.2 * index, "density": 0.4}.items()
            if name in takes
        }
        for index in range(count + 1)
    ]
    given = {name: 0.1 for name, spec in takes.items() if spec.required and not spec.per_source}
    tensors = [base, *(base + one.dense() for one in updates)]
    found = plain_inputs(METHODS[method], tensors, own, {**given, **shared, CORE_SPACE: core})
    found.factors = dict(enumerate(updates, 1))
    return found


def reference() -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Bases and core matrices as the paper states them, float64."""
    updates = factors()
    left, _, _ = np.linalg.svd(
        np.concatenate([one.left.double().numpy() for one in updates], 1), full_matrices=False
    )
    _, _, right = np.linalg.svd(
        np.concatenate([one.right.double().numpy() for one in updates]), full_matrices=False
    )
    cores = [
        one.scale * left.T @ one.left.double().numpy() @ one.right.double().numpy() @ right.T
        for one in updates
    ]
    return left, right, cores


def test_every_method_of_task_vectors_takes_it() -> None:
    assert {"task_arithmetic", "ties", "dare_ties", "della", "breadcrumbs", "sce"} < {*TAKES}
    assert {"linear", "slerp", "karcher", "passthrough"}.isdisjoint(TAKES)


@pytest.mark.parametrize("name", TAKES)
def test_any_method_merges_core_matrices(name: str) -> None:
    method = METHODS[name]
    found = method.merge(inputs(name, min(3, method.max_models or 3)))
    assert found.shape == (ROWS, COLUMNS)
    assert found.isfinite().all()
    update = found.double() - inputs(name).tensor(0).double()
    assert torch.linalg.matrix_rank(update, atol=1e-4) <= sum(RANKS)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("name", ["task_arithmetic", "ties"])
def test_a_linear_method_gives_the_same_as_without(name: str, normalize: bool) -> None:
    """TIES of one expert at density 1 is linear, too."""
    count = 1 if name == "ties" else 3
    with_it, without = (inputs(name, count, core, normalize=normalize) for core in (True, False))
    for one in (with_it, without):
        one.own = tuple(
            {**values, **{"density": 1.0}} if name == "ties" else values for values in one.own
        )
    found, expected = METHODS[name].merge(with_it), METHODS[name].merge(without)
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()
    gradient = torch.randn(ROWS, COLUMNS)
    of = METHODS[name].gradients
    assert of is not None
    own, others = of(with_it, gradient), of(without, gradient)
    assert own.own["weight"] == pytest.approx(others.own["weight"], rel=1e-4, abs=1e-5)
    assert own.shared == pytest.approx(others.shared, rel=1e-4, abs=1e-5)


def test_ties_is_the_papers() -> None:
    left, right, cores = reference()
    weights = [0.6, 0.8, 1.0]
    kept = []
    for core in cores:
        count = int(0.4 * core.size)
        threshold = np.sort(np.abs(core), axis=None)[-count]
        kept.append(np.where(np.abs(core) >= threshold, core, 0))
    weighted = np.stack([w * core for w, core in zip(weights, kept, strict=True)])
    sign = np.where(weighted.sum(0) >= 0, 1, -1)
    agree = weighted * sign > 0
    divisor = (agree * np.array(weights)[:, None, None]).sum(0)
    core = (weighted * agree).sum(0) / np.where(divisor == 0, 1, divisor)
    one = inputs("ties")
    expected = one.tensor(0).double().numpy() + left @ core @ right
    found = METHODS["ties"].merge(one).double().numpy()
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()
    without = METHODS["ties"].merge(inputs("ties", core=False)).double().numpy()
    assert np.abs(found - without).max() > 0.1  # it is another merge


def test_gradients_are_what_a_small_step_changes() -> None:
    step, gradient = 1e-3, torch.randn(ROWS, COLUMNS)
    of = METHODS["ties"].gradients
    assert of is not None
    found = of(inputs("ties"), gradient).own["weight"]
    for index in (1, 2, 3):
        values = []
        for sign in (1, -1):
            one = inputs("ties")
            own = list(one.own)
            own[index] = {**own[index], "weight": own[index]["weight"] + sign * step}
            one.own = tuple(own)
            values.append(float((METHODS["ties"].merge(one).double() * gradient.double()).sum()))
        assert found[index] == pytest.approx(
            (values[0] - values[1]) / (2 * step), rel=2e-2, abs=1e-2
        )


def test_what_has_no_factors_is_merged_as_without() -> None:
    one, without = inputs("ties"), inputs("ties", core=False)
    one.factors = {}
    assert torch.equal(METHODS["ties"].merge(one), METHODS["ties"].merge(without))


def test_weights_by_row_are_refused() -> None:
    one = inputs("task_arithmetic")
    one._added = {1: torch.rand(ROWS, 1)}
    with pytest.raises(MergeError, match="core_space has no weights by row"):
        METHODS["task_arithmetic"].merge(one)
    one = inputs("task_arithmetic")
    one.by_row = True
    of = METHODS["task_arithmetic"].gradients
    assert of is not None
    with pytest.raises(MergeError, match="core_space has no weights by row"):
        of(one, torch.zeros(ROWS, COLUMNS))


def test_singular_values_are_the_same_there() -> None:
    """Iso-C goes by nothing but singular values and vectors, which the bases only turn."""
    found, expected = (METHODS["iso_c"].merge(inputs("iso_c", core=core)) for core in (True, False))
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("ties", "importance"),
        ("della", "importance"),
        ("regmean", "activations"),
        ("regmean", "merged_features"),
    ],
)
def test_what_is_known_of_columns_is_refused(name: str, asked: str) -> None:
    with pytest.raises(MergeError, match=f"core_space has no {asked} of entries"):
        METHODS[name].merge(inputs(name, **{asked: True}))


def test_it_is_another_merge_unless_it_is_a_sum() -> None:
    for name, same in (("task_arithmetic", True), ("ties", False), ("iso_c", False)):
        effects = [
            METHODS[name].effect(one.shared, one.own, 0)
            for one in (inputs(name), inputs(name, core=False))
        ]
        assert (effects[0] == effects[1]) == same
