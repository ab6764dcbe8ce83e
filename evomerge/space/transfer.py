"""A point of one space → the point of another whose model is as near to the same as can be.

For campaigns that begin where an earlier one ended, though experts came or went, layers are grouped
otherwise, or other parameters are searched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from evomerge import config as campaign
from evomerge.candidate.merge import component_of
from evomerge.space import choices
from evomerge.space.dimensions import WEIGHT, Searched, within
from evomerge.space.groups import Numbers, mean_overlap, regrouped

if TYPE_CHECKING:
    from evomerge.space.space import Space


def transfer(old: Space, new: Space, params: Mapping[str, float]) -> dict[str, float] | None:
    """Return the point of `new` that comes closest to a point of `old`.

    Experts are matched by name: one that is new starts at weight 0, one that is gone is dropped.
    Groups of layers are matched by the layers that they share, components by name, or else by what
    they belonged to. A parameter that was not searched starts at the value that it had: the fixed one, or
    the method's default; at its range's middle if there is none. What leaves its range is put back on the
    end of it.

    Args:
        old: The earlier space.
        new: Of the same base.
        params: A point of `old`.

    Returns:
        A value for each dimension of `new`; None if it does not search the point's method, or its models
        have another number of layers.
    """
    same_height = old.family.num_layers == new.family.num_layers
    if old.method(params) not in new.settings.method or not same_height:
        return None
    found = _choices(old, new, params)
    for one in new.searched:
        found |= one.params(_coordinates(old, new, one, params))
    return {name: found[name] for name in new.distributions}


def _choices(old: Space, new: Space, params: Mapping[str, float]) -> dict[str, float]:
    names = (*map(choices.score, new.settings.method), *map(choices.use, new.family.experts))
    found = {name: params.get(name, 1.0) for name in names}
    if old.settings.method != new.settings.method:
        found |= choices.choosing(new.settings.method, old.method(params))
    return found


def _coordinates(old: Space, new: Space, one: Searched, params: Mapping[str, float]) -> Numbers:
    """Return the coordinates of one of the new space's parameters."""
    before = old.named.get(one.name) or _unsearched(old, new, one)
    values = _by_expert(_values(old, new, before, one, params), before, one, old, new)
    values = values[:, _components(before.components, one.components)].mean(axis=2)
    values = regrouped(mean_overlap(before.groups, one.groups), values)
    return values if one.total is None else within(values, one.high)


def _values(
    old: Space, new: Space, before: Searched, one: Searched, params: Mapping[str, float]
) -> Numbers:
    """Return what is carried over of the old parameter.

    Where both spaces scale to a sum, or both can leave experts out, that is done again in the new one.
    """
    part = old.part(before, params)
    if before.total is not None and one.total is None:
        return before.values(params, part)
    coordinates = before.coordinates(params)
    return coordinates * part if part is not None and not new.settings.subsets else coordinates


def _by_expert(values: Numbers, before: Searched, one: Searched, old: Space, new: Space) -> Numbers:
    """Match the axis of experts; those that the old space did not know start at weight 0."""
    shared = values.shape[2] == 1 and before.experts == (None,)
    places = {name: 0 if shared else place for place, name in enumerate(old.family.experts)}
    if one.experts == (None,):
        mean: Numbers = values.mean(axis=2, keepdims=True)
        return mean
    start = 0.0 if one.name == WEIGHT else _start(new, one)
    unknown = np.full(values.shape[:2], start)
    columns = [
        unknown if name not in places else values[:, :, places[name]]
        for name in map(str, one.experts)
    ]
    found: Numbers = np.stack(columns, axis=2)
    return found


def _components(old: Sequence[str | None], new: Sequence[str | None]) -> list[list[int]]:
    """Return, for each new component, the old ones whose mean it takes: its own, or (None) all."""
    if old == (None,):
        return [[0] for _ in new]
    if new == (None,):
        return [list(range(len(old)))]
    texts = [str(text) for text in old[:-1]]
    return [[component_of(texts, str(text))] for text in new[:-1]] + [[len(texts)]]


def _unsearched(old: Space, new: Space, one: Searched) -> Searched:
    """Return a parameter that the old space did not search, fixed at the value that it had there."""
    fixed = old.settings.parameters.get(one.name)
    value = _start(new, one) if fixed is None or isinstance(fixed, campaign.Range) else float(fixed)
    whole = ((0, old.family.num_layers),)
    return Searched(one.name, whole, (None,), (None,), ((value, value),))


def _start(new: Space, one: Searched) -> float:
    """Return the value that a method takes where it is given none; the middle of the range if it has none."""
    facts = [method.parameters.get(one.name) for method in new.methods.values()]
    defaults = [fact.default for fact in facts if fact is not None and fact.default is not None]
    return float(defaults[0]) if defaults else float((one.low + one.high).mean() / 2)
