"""What it takes to serve a model: weights and memory, counted from its candidate, and time, measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evomerge.candidate import Candidate, Merge, Size
from evomerge.candidate.timing import Timing


@dataclass(frozen=True)
class Serving:
    """What it takes to serve a model.

    Attributes:
        parameters: All of its weights; what several members share stands in memory once.
        active_parameters: Those that one token is computed with.
        bytes: Of all weights, in the campaign's dtype; caches and work space come on top.
        relative_parameters: As a share of the base's.
        relative_active: The same of those that one token is computed with.
        milliseconds: An item, a prompt read and continued by 15 tokens, of 16 at once; None: not measured.
        tokens_per_second: Generated for all of them together.
        relative_time: Relative to the base, measured in alternation with it; of a merge 1 by construction.
        time_spread: Half the range of that in the turns of the measurement.
    """

    parameters: int
    active_parameters: int
    bytes: int
    relative_parameters: float
    relative_active: float
    milliseconds: float | None = None
    tokens_per_second: float | None = None
    relative_time: float | None = None
    time_spread: float | None = None


def serving_of(
    candidate: Candidate, base: Size, itemsize: int, own: Timing | None, of_base: Timing | None
) -> Serving | None:
    """Return what it takes to serve a candidate.

    Args:
        candidate: With the models' names as the campaign has them.
        base: How many weights the base has, and where.
        itemsize: Bytes of a weight.
        own: Its time; a merge has the base's.
        of_base: The base's time.

    Returns:
        None where an earlier version did not count the base's weights.
    """
    if not base.total:
        return None
    size, active = candidate.size(base), candidate.active(base)
    weights = round(size * base.total)
    counted = weights, round(active * base.total), weights * itemsize, size, active
    timing = of_base if isinstance(candidate, Merge) else own
    if timing is None:
        return Serving(*counted)
    return Serving(
        *counted, timing.milliseconds, timing.tokens_per_second, timing.relative, timing.spread
    )


def unlike(needed: Sequence[Serving | None]) -> dict[str, list[float | None]]:
    """Return what models take relative to the base, where it tells them apart: a value a model."""
    found: dict[str, list[float | None]] = {
        "parameters": [None if one is None else one.relative_parameters for one in needed],
        "active_parameters": [None if one is None else one.relative_active for one in needed],
        "time": [None if one is None else one.relative_time for one in needed],
    }
    return {name: values for name, values in found.items() if len({*values} - {None}) > 1}
