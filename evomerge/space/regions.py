"""Regions of a space within which the same numbers count: what the trials are shared out among."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Region:
    """A part of a space whose candidates depend on the same numbers.

    Attributes:
        arm: What is searched by one sampler: a merge method; of several kinds the kind, and its own arm.
        experts: Those that take part, in the order of the campaign; all where none may be left out.
    """

    arm: str
    experts: tuple[str, ...] = ()


class Regions(Protocol):
    """How a space falls apart. Points and dimensions are those of the whole space."""

    def first(self) -> tuple[Region, ...]:
        """Return where each arm begins."""

    def at(self, params: Mapping[str, float]) -> Region:
        """Return the region that a point lies in."""

    def neighbours(self, region: Region) -> tuple[Region, ...]:
        """Return the regions of the same arm with one expert less, then with one more; none is empty."""

    def free(self, region: Region) -> tuple[str, ...]:
        """Return the dimensions on which its candidates depend, in the order of the space."""

    def differentiable(self, region: Region) -> tuple[str, ...]:
        """Return those dimensions of `free` that have a gradient there."""

    def default_point(self, region: Region) -> dict[str, float]:
        """Return where a region is searched first, if nothing is known of it."""

    def moved_to(
        self, region: Region, params: Mapping[str, float], own: Mapping[str, float]
    ) -> dict[str, float] | None:
        """Return the point of a region that is most like a point of another one.

        Args:
            region: Where to.
            params: The point, whose numbers are taken over where its own candidates depend on them.
            own: A point of the region, from which the others are taken.

        Returns:
            None where the two have nothing in common.
        """

    def waits(self, arm: str) -> bool:
        """Tell whether an arm's candidates are made over the best merge, so that merges are tried first."""
        return False
