"""A point's values → a recipe: one slice a group of layers, filters for the components."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from evomerge import campaign
from evomerge.recipe import Conditional, Recipe, Setting, Slice, Source
from evomerge.space.dimensions import Searched
from evomerge.space.profiles import Numbers

if TYPE_CHECKING:
    from evomerge.space.space import Space


def written(space: Space, params: Mapping[str, float]) -> Recipe:
    """Return the recipe of a point."""
    method = space.method(params)
    facts = space.methods[method]
    tables = {
        one.name: (one, one.values(params, space.part(one, params)))
        for one in space.searched
        if one.name in facts.parameters
    }
    fixed = {
        name: value
        for name, value in space.settings.parameters.items()
        if name in facts.parameters and name not in tables and not isinstance(value, campaign.Range)
    }
    return Recipe(
        method=method,
        slices=tuple(_slice(space, method, tables, group) for group in range(len(space.groups))),
        base_model=space.family.base if facts.needs_base else None,
        parameters=fixed,
        dtype=space.family.dtype,
        seed=space.seed_of_masks(params),
    )


def _slice(
    space: Space, method: str, tables: Mapping[str, tuple[Searched, Numbers]], group: int
) -> Slice:
    facts, layers = space.methods[method], space.groups[group]

    def settings(expert: int | None) -> Iterator[tuple[str, Setting]]:
        """The searched settings of one expert, or (None) those shared by all sources."""
        for name, (one, values) in tables.items():
            if facts.parameters[name].per_source == (expert is not None):
                row = 0 if values.shape[0] == 1 else group
                column = 0 if values.shape[2] == 1 else expert
                yield name, _setting(one, values[row, :, column].tolist())

    sources = [Source(space.family.base, layers)] if facts.needs_base else []
    for position, model in enumerate(space.family.experts.values()):
        sources.append(Source(model, layers, dict(settings(position))))
    return Slice(sources=tuple(sources), parameters=dict(settings(None)))


def _setting(one: Searched, values: list[float]) -> Setting:
    """One value for each component, as a list of filters whose last takes the rest."""
    if len(values) == 1:
        return values[0]
    filters = [*one.components[:-1], None]
    return tuple(Conditional(value, text) for value, text in zip(values, filters, strict=True))
