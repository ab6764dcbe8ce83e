"""What every method has to state."""

from __future__ import annotations

import pytest
import torch

from evomerge.merge import METHODS


@pytest.mark.parametrize("name", sorted(METHODS))
def test_parameters_are_explained_and_their_defaults_legal(name):
    method = METHODS[name]
    assert method.name == name
    assert method.needs_base <= method.uses_base
    assert method.max_models is None or method.min_models <= method.max_models
    for key, spec in method.parameters.items():
        assert key not in method.ignored
        assert len(spec.help) > 15
        assert not (spec.required and spec.default is not None)
        if spec.kind == "boolean":
            assert isinstance(spec.default, bool)
        elif spec.default is not None:
            assert spec.low is None or spec.low <= spec.default
            assert spec.high is None or spec.default <= spec.high


@pytest.mark.parametrize("name", sorted(METHODS))
def test_methods_work_on_any_shape_and_never_write_into_inputs(name, merge):
    method = METHODS[name]
    count = 1 if method.max_models == 1 and not method.uses_base else 2
    shared = {
        key: 0.5 for key, spec in method.parameters.items() if spec.required and not spec.per_source
    }
    own = {"weight": 0.5} | ({"density": 0.5} if "density" in method.parameters else {})
    for shape in ((7,), (3, 5), (2, 3, 4), (1,), (0,)):
        tensors = [torch.randn(shape) for _ in range(count)]
        merged = merge(name, tensors, [own] * count, **shared)
        assert merged.shape == shape
        assert merged.dtype == torch.float32
        assert torch.isfinite(merged).all()


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_gradients_are_what_a_small_step_changes(name, normalize, merge, gradients):
    """Every number of every method, one after the other, against central differences in float64."""
    parameters = METHODS[name].parameters
    count = {"passthrough": 1, "slerp": 2}.get(name, 4)
    tensors = [torch.randn(30, 5, dtype=torch.float64) for _ in range(count)]
    gradient = torch.randn(30, 5, dtype=torch.float64)
    own = [
        {"weight": 0.3 + 0.2 * index, "density": 0.6, "scale": 0.7 * (index + 1)}
        for index in range(count)
    ]
    own = [{k: v for k, v in values.items() if k in parameters} for values in own]
    shared = {"t": 0.3, "lambda": 0.8, "normalize": normalize}
    shared = {k: v for k, v in shared.items() if k in parameters}

    def change(step_own, step_shared):
        found = [
            merge(
                name,
                tensors,
                [
                    {k: v + h * step_own.get((i, k), 0) for k, v in o.items()}
                    for i, o in enumerate(own)
                ],
                **{k: v + h * step_shared[k] if k in step_shared else v for k, v in shared.items()},
            )
            for h in (1e-6, -1e-6)
        ]
        return float(((found[0] - found[1]) * gradient).sum()) / 2e-6

    found = gradients(name, gradient, tensors, own, **shared)
    assert set(found.own) | set(found.shared) == parameters.keys() & {
        "weight",
        "scale",
        "t",
        "lambda",
    }
    for parameter, values in found.own.items():
        for index, value in enumerate(values):
            expected = change({(index, parameter): 1.0}, {})
            assert value == pytest.approx(expected, rel=1e-6, abs=1e-8), (parameter, index)
    for parameter, value in found.shared.items():
        assert value == pytest.approx(change({}, {parameter: 1.0}), rel=1e-6), parameter
