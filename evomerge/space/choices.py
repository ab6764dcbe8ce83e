"""What a point chooses: the merge method, and which experts take part; and the numbers that then count.

A search within one choice sees only the dimensions on which its models depend. The others stand in the
middle, so that every trial is a point of the whole space.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evomerge.space.dimensions import WEIGHT, Searched, has_gradient
from evomerge.space.groups import Numbers

if TYPE_CHECKING:
    from evomerge.space.space import Space


@dataclass(frozen=True)
class Choice:
    """A method and a subset of the experts.

    Attributes:
        method: Its name.
        experts: Those that take part, in the order of the campaign; all where none may be left out.
    """

    method: str
    experts: tuple[str, ...]


def first_choices(space: Space) -> tuple[Choice, ...]:
    """Return each method with all experts."""
    experts = tuple(space.family.experts)
    return tuple(Choice(method, experts) for method in space.settings.method)


def choice_of(space: Space, params: Mapping[str, float]) -> Choice:
    """Return what a point chooses."""
    method, experts = space.method(params), tuple(space.family.experts)
    if space.settings.subsets and WEIGHT in space.methods[method].parameters:
        part = taking_part(experts, params)
        experts = tuple(one for one, takes in zip(experts, part, strict=True) if takes)
    return Choice(method, experts)


def neighbours(space: Space, choice: Choice) -> tuple[Choice, ...]:
    """Return the choices of the same method with one expert less, then with one more; none is empty."""
    if not space.settings.subsets or WEIGHT not in space.methods[choice.method].parameters:
        return ()
    found = []
    for one in sorted(space.family.experts, key=lambda name: name not in choice.experts):
        flipped = {one} ^ set(choice.experts)
        experts = tuple(name for name in space.family.experts if name in flipped)
        found += [Choice(choice.method, experts)] if experts else []
    return tuple(found)


def free(space: Space, choice: Choice) -> tuple[str, ...]:
    """Return the dimensions on which the models of a choice depend, in the order of the space."""
    names = set(_numbers(space, choice))
    return tuple(name for name in space.distributions if name in names)


def differentiable(space: Space, choice: Choice) -> tuple[str, ...]:
    """Return those dimensions of `free` by which the choice's method has gradients."""
    method = space.methods[choice.method]
    names = {
        name for one in space.searched if has_gradient(one.name, method) for name in one.places
    }
    return tuple(name for name in free(space, choice) if name in names)


def default_point(space: Space, choice: Choice) -> dict[str, float]:
    """Return the point of a choice whose numbers are the method's defaults, or the nearest in their range.

    A number without a default, and one on which no model of the choice depends, is the middle of its range.
    """
    found = space.middle(choice.method)
    if space.settings.subsets:
        found |= {use(one): float(one in choice.experts) for one in space.family.experts}
    return found | _defaults(space, choice)


def moved_to(
    space: Space, choice: Choice, params: Mapping[str, float], own: Mapping[str, float]
) -> dict[str, float]:
    """Return the point of a choice that is most like a point of another one.

    Args:
        space: The whole space.
        choice: Where to.
        params: The point, whose numbers are taken over where its own models depend on them.
        own: A point of the choice, from which the others are taken.
    """
    known = set(free(space, choice_of(space, params)))
    return {**own, **{name: params[name] for name in free(space, choice) if name in known}}


def _numbers(space: Space, choice: Choice) -> Iterator[str]:
    for one in _read(space, choice):
        for name, (_, _, expert) in one.places.items():
            if one.experts[expert] is None or one.experts[expert] in choice.experts:
                yield name


def _read(space: Space, choice: Choice) -> list[Searched]:
    takes = space.methods[choice.method].parameters
    return [one for one in space.searched if one.name in takes]


def _defaults(space: Space, choice: Choice) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in _read(space, choice):
        default = space.methods[choice.method].parameters[one.name].default
        if default is not None:
            values = np.full(len(one.experts), float(default)).clip(one.low, one.high)
            found |= one.params(one.constant(values))
    return found


ON = 0.5
"""From here on an expert takes part."""


def names(methods: Sequence[str], experts: Iterable[str]) -> list[str]:
    """Return the dimensions.

    Args:
        methods: All that may be chosen; a single one needs no dimension.
        experts: Those that may be left out; none where all always take part.
    """
    found = [score(method) for method in methods] if len(methods) > 1 else []
    return found + [use(expert) for expert in experts]


def score(method: str) -> str:
    """Return the dimension that holds a method's score."""
    return f"method/{method}"


def use(expert: str) -> str:
    """Return the dimension that says whether an expert takes part."""
    return f"use/{expert}"


def is_choice(name: str) -> bool:
    """Tell whether a dimension is of those that choose the method, or who takes part."""
    return name.startswith((score(""), use("")))


def chosen(methods: Sequence[str], params: Mapping[str, float]) -> str:
    """Return the method with the highest score, the first of equals."""
    return methods[0] if len(methods) == 1 else max(methods, key=lambda m: params[score(m)])


def choosing(methods: Sequence[str], method: str) -> dict[str, float]:
    """Return scores that choose a method."""
    return {score(name): float(name == method) for name in methods} if len(methods) > 1 else {}


def taking_part(experts: Iterable[str], params: Mapping[str, float]) -> Numbers:
    """Return 1 for each expert that takes part, 0 for another; where none would, the highest does.

    Returns:
        Shape [experts].
    """
    values = np.array([params[use(expert)] for expert in experts])
    part = values >= ON
    if not part.any():
        part[values.argmax()] = True
    return part.astype(np.float64)
