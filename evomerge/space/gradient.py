"""Gradients by a recipe's numbers → gradients by the dimensions of the space that it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from evomerge.candidate.trial import Gradients
from evomerge.merge.methods import Method
from evomerge.space.dimensions import Searched
from evomerge.space.groups import Numbers

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
        by_value = _table(space, one, method, gradients)
        found |= one.gradients(params, space.part(one, params), by_value)
    return found


def is_differentiable(name: str, methods: Mapping[str, Method]) -> bool:
    """Tell whether some method has gradients by a parameter."""
    return any(has_gradient(name, method) for method in methods.values())


def has_gradient(name: str, method: Method) -> bool:
    """Tell whether a method takes a parameter and has gradients by it."""
    taken = method.parameters.get(name)
    return taken is not None and method.gradients is not None and taken.differentiable


def component_of(components: Sequence[str], tensor: str) -> int:
    """Return which component a tensor belongs to: the first whose text its name contains, else the rest."""
    places = (place for place, text in enumerate(components) if text in tensor)
    return next(places, len(components))


def _table(space: Space, one: Searched, method: Method, gradients: Gradients) -> Numbers:
    """Sum the tensors' gradients by place, [groups, components, experts or 1]."""
    per_source = method.parameters[one.name].per_source
    components = space.settings.components
    experts = {model: place for place, model in enumerate(space.family.experts.values())}
    width = len(experts) if per_source else 1
    table = np.zeros((len(space.groups), len(components) + 1, width))
    known = False
    for name, tensor in gradients.tensors.items():
        row = table[tensor.slice, component_of(components, name)]
        if not per_source and one.name in tensor.shared:
            known = True
            row[0] += tensor.shared[one.name]
        elif per_source and one.name in tensor.own:
            known = True
            for model, gradient in zip(tensor.models, tensor.own[one.name], strict=True):
                if model in experts:
                    row[experts[model]] += gradient
    if not known:
        raise ValueError(f"no tensor has a gradient by {one.name}")
    return table
