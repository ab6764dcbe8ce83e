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
