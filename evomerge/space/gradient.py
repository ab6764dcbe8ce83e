"""Gradients by a recipe's numbers → gradients by the dimensions of the space that it came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from evomerge.candidate.trial import Gradients
from evomerge.merge.methods import Method

if TYPE_CHECKING:
    from evomerge.space.space import Space


def gradient(space: Space, params: Mapping[str, float], gradients: Gradients) -> dict[str, float]:
    """Return the gradient by each dimension that has one.

    Raises:
        ValueError: `gradients` holds none by a parameter that should have some.
    """
    method = space.methods[space.method(params)]
    found: dict[str, float] = {}
    for one in space.searched:
        if not is_differentiable(one.name, space.methods):
            continue
        if not has_gradient(one.name, method):  # the model does not depend on it, or has none by it
            found |= dict.fromkeys(one.places, 0.0)
            continue
        if one.name not in gradients.numbers:
            raise ValueError(f"there is no gradient by {one.name}")
        by_value = np.array(gradients.numbers[one.name], dtype=np.float64)
        found |= one.gradients(params, space.part(one, params), by_value)
    return found


def is_differentiable(name: str, methods: Mapping[str, Method]) -> bool:
    """Tell whether some method has gradients by a parameter."""
    return any(has_gradient(name, method) for method in methods.values())


def has_gradient(name: str, method: Method) -> bool:
    """Tell whether a method takes a parameter and has gradients by it."""
    taken = method.parameters.get(name)
    return taken is not None and method.gradients is not None and taken.differentiable
