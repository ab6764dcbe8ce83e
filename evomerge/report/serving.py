"""What it takes to serve a model: weights and memory, counted from its candidate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evomerge.candidate import Candidate, Size


@dataclass(frozen=True)
class Serving:
    """What it takes to serve a model.

    Attributes:
        parameters: All of its weights; what several members share stands in memory once.
        active_parameters: Those that one token is computed with.
        bytes: Of all weights, in the campaign's dtype; caches and work space come on top.
        relative_parameters: As a share of the base's.
        relative_active: The same of those that one token is computed with.
    """

    parameters: int
    active_parameters: int
    bytes: int
    relative_parameters: float
    relative_active: float


def serving_of(candidate: Candidate, base: Size, itemsize: int) -> Serving | None:
    """Return what it takes to serve a candidate.

    Args:
        candidate: With the models' names as the campaign has them.
        base: How many weights the base has, and where.
        itemsize: Bytes of a weight.

    Returns:
        None where an earlier version did not count the base's weights.
    """
    if not base.total:
        return None
    size, active = candidate.size(base), candidate.active(base)
    weights = round(size * base.total)
    return Serving(weights, round(active * base.total), weights * itemsize, size, active)


def unlike(needed: Sequence[Serving | None]) -> dict[str, list[float | None]]:
    """Return what models take relative to the base, where it tells them apart: a value a model."""
    found: dict[str, list[float | None]] = {
        "parameters": [None if one is None else one.relative_parameters for one in needed],
        "active_parameters": [None if one is None else one.relative_active for one in needed],
    }
    return {name: values for name, values in found.items() if len({*values} - {None}) > 1}
