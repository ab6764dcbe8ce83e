"""Which sequences begin alike, so that what they share is computed once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from evomerge.inference.stopping import Tokens

_SHORTEST = 8  # tokens; below, reading them again costs less than a mask
_OVERHEAD = 192  # tokens that a pass of its own and a batch of its own are about worth
_LEVELS = 128  # bounds how deeply shared beginnings are looked for inside each other


@dataclass(frozen=True)
class Alike:
    """Sequences that begin alike."""

    shared: int  # how many of their first tokens are computed once; 0: none
    members: tuple[int, ...]  # their indices


def begin_alike(sequences: Sequence[Tokens]) -> list[Alike]:
    """Share out sequences among preambles so that the fewest tokens are left to compute.

    In lexical order the sequences that begin with the same n tokens stand together, and their
    common beginning is the shortest that two neighbours have. So the best cut is found level by
    level: a stretch of neighbours either shares its common beginning, or falls apart where that is
    all that two neighbours share.
    """
    order = sorted(range(len(sequences)), key=lambda index: sequences[index])
    common = [0] + [
        common_length(sequences[left], sequences[right]) for left, right in pairwise(order)
    ]
    step = max(_SHORTEST, max(common, default=0) // _LEVELS)
    levels = [length // step for length in common]
    _, stretches = _best(common, levels, 0, len(order))
    alike = [Alike(shared, tuple(order[start:stop])) for shared, start, stop in stretches if shared]
    rest = tuple(
        order[i] for shared, start, stop in stretches if not shared for i in range(start, stop)
    )
    return [*alike, Alike(0, rest)] if rest else alike


def common_length(left: Tokens, right: Tokens) -> int:
    """Return how many first tokens two sequences have in common."""
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return index
    return min(len(left), len(right))


_Stretch = tuple[int, int, int]  # (shared tokens, start, stop)


def _best(
    common: Sequence[int], levels: Sequence[int], start: int, stop: int
) -> tuple[int, list[_Stretch]]:
    """Return how many tokens are saved between `start` and `stop`, and by which stretches."""
    if stop - start < 2:
        return 0, [(0, start, stop)] if stop > start else []
    shared = min(common[start + 1 : stop])
    lowest = min(levels[start + 1 : stop])
    saved = (stop - start - 1) * shared - _OVERHEAD if shared >= _SHORTEST else 0
    cuts = [i for i in range(start + 1, stop) if levels[i] == lowest]
    apart, stretches = 0, []
    for left, right in zip([start, *cuts], [*cuts, stop], strict=True):
        gain, found = _best(common, levels, left, right)
        apart += gain
        stretches += found
    if saved > apart:
        return saved, [(shared, start, stop)]
    return apart, stretches
