"""A point's values → a recipe: one slice a group of layers, filters for the components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge import campaign
from evomerge.recipe import Conditional, Recipe, Setting, Slice, Source

if TYPE_CHECKING:
    from evomerge.space.space import Space


@dataclass(frozen=True)
class _Table:
    """The values of one searched parameter, [groups][experts][components].

    An axis by which it does not differ has length 1.
    """

    name: str
    filters: Sequence[str | None]
    values: Sequence[Sequence[Sequence[float]]]

    def setting(self, group: int, expert: int) -> Setting:
        """Return what stands in the recipe: a value, or a list of filters whose last takes the rest."""
        row = self.values[group] if len(self.values) > 1 else self.values[0]
        found = row[expert] if len(row) > 1 else row[0]
        if len(found) == 1:
            return found[0]
        pairs = zip(found, self.filters, strict=True)
        return tuple(Conditional(value, text) for value, text in pairs)


def written(space: Space, params: Mapping[str, float]) -> Recipe:
    """Return the recipe of a point."""
    method = space.method(params)
    facts = space.methods[method]
    own: list[_Table] = []
    shared: list[_Table] = []
    for one in space.searched:
        if one.name in facts.parameters:
            values = one.values(params, space.part(one, params)).swapaxes(1, 2).tolist()
            table = _Table(one.name, (*one.components[:-1], None), values)
            (own if facts.parameters[one.name].per_source else shared).append(table)
    searched = {table.name for table in (*own, *shared)}
    fixed = {
        name: value
        for name, value in space.settings.parameters.items()
        if name in facts.parameters
        and name not in searched
        and not isinstance(value, campaign.Range)
    }
    base = space.family.base if facts.needs_base else None
    return Recipe(
        method=method,
        slices=tuple(_slice(space, base, own, shared, group) for group in range(len(space.groups))),
        base_model=base,
        parameters=fixed,
        dtype=space.family.dtype,
        seed=space.seed_of_masks(params),
    )


def _slice(
    space: Space, base: str | None, own: Sequence[_Table], shared: Sequence[_Table], group: int
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
    sources = [] if base is None else [Source(base, layers)]
    for expert, model in enumerate(space.family.experts.values()):
        settings = {table.name: table.setting(group, expert) for table in own}
        sources.append(Source(model, layers, settings))
    return Slice(tuple(sources), None, {table.name: table.setting(group, 0) for table in shared})
