"""Choices as numbers in [0, 1]: the method, which experts take part, the seed of the masks.

Each is present in every trial, so that no sampler falls back to independent or random sampling for a
parameter that is not always there, and no order of the methods is made up. None of them has a gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from evomerge.space.profiles import Numbers

MASK_SEED = "mask_seed"
MASK_SEEDS = 1 << 16
"""How many seeds of the random masks are told apart."""
ON = 0.5
"""From here on an expert takes part."""


def names(methods: Sequence[str], experts: Iterable[str], mask_seed: bool) -> list[str]:
    """Return the dimensions.

    Args:
        methods: All that may be chosen; a single one needs no dimension.
        experts: Those that may be left out; none where all always take part.
        mask_seed: Whether the seed is searched.
    """
    found = [score(method) for method in methods] if len(methods) > 1 else []
    found += [use(expert) for expert in experts]
    return found + ([MASK_SEED] if mask_seed else [])


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


def seed_of_masks(seed: int, share: float) -> int:
    """Return the seed of the random masks.

    Args:
        seed: The campaign's, which is also that of share 0.
        share: In [0, 1]; each 1 / `MASK_SEEDS` of it is another seed.
    """
    return seed + (min(int(share * MASK_SEEDS), MASK_SEEDS - 1) << 32)
