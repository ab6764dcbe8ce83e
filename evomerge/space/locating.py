"""The point of a space whose model is a given one, where there is such a point."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from evomerge import config as campaign
from evomerge.space import codes
from evomerge.space.baselines import Wanted
from evomerge.space.dimensions import Searched
from evomerge.space.facts import WEIGHT
from evomerge.space.groups import Numbers
from evomerge.space.shares import within

if TYPE_CHECKING:
    from evomerge.space.space import Space

SAME = 1e-9
"""Sums that differ by less, relatively, are the same."""


def located(space: Space, method: str, wanted: Wanted) -> dict[str, float] | None:
    """Return the point whose model is `method` with the `wanted` values; None if there is none.

    Args:
        space: Where to look.
        method: Name of the method; the point chooses it.
        wanted: Values that are the same in all groups of layers and components. An expert of
            weight 0 takes no part where experts may be left out.
    """
    if method not in space.settings.method:
        return None
    experts, takes = list(space.family.experts), space.methods[method].parameters
    if any(
        name in takes and not _is(wanted, name, value, experts)
        for name, value in space.settings.parameters.items()
        if not isinstance(value, campaign.Range) and name not in space.named
    ):
        return None
    part = None
    if space.settings.subsets:
        part = np.array([float(wanted.weights[expert] != 0) for expert in experts])
        part[0] = part[0] if part.any() else 1.0
        if WEIGHT not in takes:
            part[:] = 1.0
    params = codes.choosing(space.settings.method, method)
    if part is not None:
        params |= {codes.use(e): float(on) for e, on in zip(experts, part, strict=True)}
    for one in space.searched:
        values = _middle(one)
        if one.name in takes:
            found = _values(one, wanted, experts, part if one.name == WEIGHT else None)
            if found is None:
                return None
            values = found
        params |= one.params(one.constant(values))
    return {name: params[name] for name in space.distributions}


def _values(
    one: Searched, wanted: Wanted, experts: list[str], part: Numbers | None
) -> Numbers | None:
    """Return the wanted values of a parameter, [experts]; None if it cannot have them."""
    on = np.ones(len(experts)) if part is None else part
    active = {e: wanted.weights[e] for e, is_on in zip(experts, on, strict=True) if is_on}
    asked = replace(wanted, weights=active)
    taking = [expert is None or expert in active for expert in one.experts]
    values = [
        asked.value(one.name, expert) if is_on else 0.0
        for expert, is_on in zip(one.experts, taking, strict=True)
    ]
    if any(value is None for value in values):
        return None
    found = np.array(values, dtype=np.float64)
    if one.total is not None:
        if not math.isclose(found.sum(), one.total, rel_tol=SAME):
            return None
        found = within(found, one.high)
    inside = (one.low <= found) & (found <= one.high)
    if not (inside | ~np.array(taking)).all():
        return None
    return found.clip(one.low, one.high)


def _middle(one: Searched) -> Numbers:
    middle: Numbers = (one.low + one.high) / 2
    return middle


def _is(wanted: Wanted, parameter: str, fixed: float, experts: list[str]) -> bool:
    values = [wanted.value(parameter, expert) for expert in experts]
    return all(value is not None and value == fixed for value in values)
