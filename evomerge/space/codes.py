"""Choices as numbers in [0, 1]: the method, and which experts take part.

Each is present in every trial, so that no sampler falls back to independent or random sampling for a
parameter that is not always there, and no order of the methods is made up. None of them has a gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from evomerge.space.groups import Numbers

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
