"""Methods on plain tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from evomerge.merge.methods import NumberGradients, method
from evomerge.testing.methods import plain_inputs


@pytest.fixture
def gradients() -> Callable[..., NumberGradients]:
    """`gradients(method, gradient, tensors, own, base=0, **shared)`."""

    def run(name, gradient, tensors, own, base=0, **shared: Any) -> NumberGradients:
        inputs = plain_inputs(method(name), tensors, own, shared, base)
        return method(name).gradients(inputs, gradient)

    return run


@pytest.fixture
def merge() -> Callable[..., torch.Tensor]:
    """`merge(method, tensors, own, base=0, **shared)`."""

    def run(name, tensors, own, base=0, **shared: Any) -> torch.Tensor:
        return method(name).merge(plain_inputs(method(name), tensors, own, shared, base))

    return run
