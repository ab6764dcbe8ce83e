"""A point's values → a recipe: one slice a group of layers, filters for the components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from evomerge import config as campaign
from evomerge.candidate import Conditional, Recipe, Setting, Slice, Source
from evomerge.space.groups import Numbers

if TYPE_CHECKING:
    from evomerge.space.space import Space


_T = TypeVar("_T")

_Settings = list[list[Setting]]
"""What stands in the recipe for one searched parameter, [groups][experts]; an axis by which it does not
differ has length 1."""


def written(space: Space, params: Mapping[str, float]) -> Recipe:
    """Return the recipe of a point."""
    method = space.method(params)
    facts = space.methods[method]
    own: dict[str, _Settings] = {}
    shared: dict[str, _Settings] = {}
    for one in space.searched:
        if one.name in facts.parameters:
            settings = _settings(one.values(params, space.part(one, params)), one.components)
            (own if facts.parameters[one.name].per_source else shared)[one.name] = settings
    fixed = {
        name: value
        for name, value in space.settings.parameters.items()
        if name in facts.parameters
        and name not in own
        and name not in shared
        and not isinstance(value, campaign.Range)
    }
    base = space.family.base if facts.needs_base else None
    vocabulary = space.family.vocabulary
    return Recipe(
        method=method,
        slices=tuple(_slice(space, base, own, shared, group) for group in range(len(space.groups))),
        # A union of vocabularies begins with the base's.
        base_model=base if vocabulary is None else space.family.base,
        vocabulary=vocabulary,
        parameters=fixed,
        dtype=space.family.dtype,
        seed=space.seed,
    )


def _settings(values: Numbers, components: Sequence[str | None]) -> _Settings:
    """Return a value, or a list of filters whose last takes the rest, for each group and expert.

    Args:
        values: [groups, components, experts].
        components: Their names.
    """
    if len(components) == 1:
        found: _Settings = values[:, 0].tolist()
        return found
    filters = (*components[:-1], None)
    return [
        [tuple(map(Conditional, row, filters)) for row in group]
        for group in values.swapaxes(1, 2).tolist()
    ]


def _slice(
    space: Space,
    base: str | None,
    own: Mapping[str, _Settings],
    shared: Mapping[str, _Settings],
    group: int,
) -> Slice:
    """Return the slice of one group of layers.

    Args:
        space: The models.
        base: Its first source; None: the method takes none.
        own: Parameters of which each expert has its own.
        shared: Parameters of all sources.
        group: Which group.
    """
    layers = space.groups[group]
    sources = [] if base is None else [space.base_sources[group]]
    rows = [(name, _of(table, group)) for name, table in own.items()]
    for expert, model in enumerate(space.family.experts.values()):
        sources.append(Source(model, layers, {name: _of(row, expert) for name, row in rows}))
    return Slice(
        tuple(sources), None, {name: _of(table, group)[0] for name, table in shared.items()}
    )


def _of(values: Sequence[_T], index: int) -> _T:
    return values[index if len(values) > 1 else 0]
