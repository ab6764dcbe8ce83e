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
from evomerge.space.regions import Region, Regions

if TYPE_CHECKING:
    from evomerge.space.space import Space


@dataclass(frozen=True)
class Choices(Regions):
    """The regions of a space of merges: an arm a method; in each a region for each subset of the experts.

    Attributes:
        space: The whole space.
    """

    space: Space

    def first(self) -> tuple[Region, ...]:
        """Return each method with all experts."""
        experts = tuple(self.space.family.experts)
        return tuple(Region(method, experts) for method in self.space.settings.method)

    def at(self, params: Mapping[str, float]) -> Region:
        """Return what a point chooses."""
        method, experts = self.space.method(params), tuple(self.space.family.experts)
        if self._leaves_out(method):
            part = taking_part(experts, params)
            experts = tuple(one for one, takes in zip(experts, part, strict=True) if takes)
        return Region(method, experts)

    def neighbours(self, region: Region) -> tuple[Region, ...]:
        """Return the regions of the same method with one expert less, then with one more; none is empty."""
        if not self._leaves_out(region.arm):
            return ()
        found = []
        for one in sorted(self.space.family.experts, key=lambda name: name not in region.experts):
            flipped = {one} ^ set(region.experts)
            experts = tuple(name for name in self.space.family.experts if name in flipped)
            found += [Region(region.arm, experts)] if experts else []
        return tuple(found)

    def free(self, region: Region) -> tuple[str, ...]:
        """Return the dimensions on which the models of a region depend, in the order of the space."""
        names = set(self._numbers(region))
        return tuple(name for name in self.space.distributions if name in names)

    def differentiable(self, region: Region) -> tuple[str, ...]:
        """Return those dimensions of `free` by which the region's method has gradients."""
        method = self.space.methods[region.arm]
        names = {
            name
            for one in self.space.searched
            if has_gradient(one.name, method)
            for name in one.places
        }
        return tuple(name for name in self.free(region) if name in names)

    def default_point(self, region: Region) -> dict[str, float]:
        """Return the point of a region whose numbers are the method's defaults, or the nearest in range.

        Weights of a method that elects signs are `FIRST`: the middle of their ranges is usually far too
        much for several experts. A number without a default, or of a method without weights (ram's and sce's
        thresholds, which change little around their defaults), or on which no model of the region depends,
        is the middle of its range.
        """
        found = self.space.middle(region.arm)
        if self.space.settings.subsets:
            found |= {use(one): float(one in region.experts) for one in self.space.family.experts}
        return found | self._defaults(region)

    def moved_to(
        self, region: Region, params: Mapping[str, float], own: Mapping[str, float]
    ) -> dict[str, float]:
        """Return the point of a region that is most like a point of another one."""
        known = set(self.free(self.at(params)))
        return {**own, **{name: params[name] for name in self.free(region) if name in known}}

    def _leaves_out(self, method: str) -> bool:
        """Whether experts may be left out."""
        return self.space.settings.subsets and WEIGHT in self.space.methods[method].parameters

    def _numbers(self, region: Region) -> Iterator[str]:
        for one in self._read(region):
            for name, (_, _, expert) in one.places.items():
                if one.experts[expert] is None or one.experts[expert] in region.experts:
                    yield name

    def _read(self, region: Region) -> list[Searched]:
        takes = self.space.methods[region.arm].parameters
        return [one for one in self.space.searched if one.name in takes]

    def _defaults(self, region: Region) -> dict[str, float]:
        found: dict[str, float] = {}
        method = self.space.methods[region.arm]
        if WEIGHT not in method.parameters:
            return found
        for one in self._read(region):
            default = method.parameters[one.name].default
            if one.name == WEIGHT and method.elects and one.total is None:
                default = FIRST
            if default is not None:
                values = np.full(len(one.experts), float(default)).clip(one.low, one.high)
                found |= one.params(one.constant(values))
        return found


FIRST = 0.3
"""λ where a search begins at no naive merge: on the zoo and in the literature the usual best."""
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
