"""A group of inputs from plain tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch

from evomerge.merge import method
from evomerge.merge.masks import largest, mask_key, uniform
from evomerge.merge.methods import NumberGradients
from evomerge.merge.methods.reductions import l1_norm


class Tensors:
    """Plain tensors as a method sees them; numbers are drawn by position."""

    def __init__(self, tensors, base, shared, own):
        self.name = "w"
        self.models = tuple(f"m{index}" for index in range(len(tensors)))
        self.base = base
        self.others = tuple(index for index in range(len(tensors)) if index != base)
        self.shared, self.own = shared, own
        self._tensors = tensors

    def tensor(self, index: int) -> torch.Tensor:
        return self._tensors[index]

    def delta(self, index: int) -> torch.Tensor:
        return self._tensors[index] - self._tensors[self.base]

    def norm(self, index: int) -> torch.Tensor:
        return l1_norm(self.delta(index))

    def largest(self, index: int, count: int) -> torch.Tensor:
        delta = self.delta(index)
        return largest(delta.reshape(-1), count).view_as(delta)

    def uniform(self, index: int) -> torch.Tensor:
        tensor = self._tensors[index]
        return uniform(mask_key(0, index, "w"), tensor.numel()).view_as(tensor)


def grouped(
    name: str,
    tensors: Sequence[torch.Tensor],
    own: Sequence[Mapping[str, float]],
    base: int | None = 0,
    **shared: float,
) -> Tensors:
    """Parameters not given take their defaults."""
    chosen = method(name)
    specs = chosen.parameters.items()
    defaults = {k: s.default for k, s in specs if s.default is not None and not s.per_source}
    own_defaults = {k: s.default for k, s in specs if s.default is not None and s.per_source}
    return Tensors(
        tensors,
        base if chosen.uses_base else None,
        defaults | shared,
        tuple(own_defaults | dict(values) for values in own),
    )


@pytest.fixture
def gradients() -> Callable[..., NumberGradients]:
    """`gradients(method, gradient, tensors, own, base=0, **shared)`."""

    def run(name: str, gradient: torch.Tensor, *inputs: Any, **shared: Any) -> NumberGradients:
        return method(name).gradients(grouped(name, *inputs, **shared), gradient)

    return run


@pytest.fixture
def merge() -> Callable[..., torch.Tensor]:
    """`merge(method, tensors, own, base=0, **shared)`."""

    def run(
        name: str,
        tensors: Sequence[torch.Tensor],
        own: Sequence[Mapping[str, float]],
        base: int | None = 0,
        **shared: float,
    ) -> torch.Tensor:
        group = grouped(name, tensors, own, base, **shared)
        before = [tensor.clone() for tensor in tensors]
        merged = method(name).merge(group)
        for tensor, old in zip(tensors, before, strict=True):
            assert torch.equal(tensor, old), "a method wrote into its input"
        return merged

    return run
