"""One searched parameter: its dimensions, the values that they stand for, and gradients the way back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import FloatDistribution

from evomerge import config as campaign
from evomerge.candidate import Vocabulary
from evomerge.merge.methods import Method
from evomerge.space.groups import LayerGroups, Numbers

WEIGHT = "weight"
"""The parameter that leaves a model out at 0."""
REST = "rest"

Place = tuple[int, int, int]
"""Row, component, expert. An axis by which a parameter does not differ has length 1."""


@dataclass(frozen=True)
class Family:
    """The models, as recipes name them.

    Attributes:
        base: A folder or a Hub id.
        experts: Name → folder, Hub id, or `MODEL+ADAPTER`.
        num_layers: Layers of each.
        dtype: Of the merged weights.
        vocabulary: Whose tokens the merged models have; None: they all have the same.
        model_type: transformers' name of the architecture; empty where no model is at hand.
    """

    base: str
    experts: Mapping[str, str]
    num_layers: int
    dtype: str
    vocabulary: Vocabulary | None = None
    model_type: str = ""


@dataclass(frozen=True)
class Searched:
    """A parameter of the method as the space sees it.

    Its coordinates are an array [rows, components, experts], where a row is a group of layers. From
    coordinates to values: experts that take no part get 0, then the experts' values are scaled to their
    sum.

    Attributes:
        name: Of the parameter.
        groups: Groups of layers that it differs by; one over all layers where it does not.
        components: Groups of components that it differs by, `rest` the last; (None,) where it does not.
        experts: Experts that it differs by; (None,) where it does not.
        spans: Per expert smallest and largest value; equal: fixed, without a dimension.
        log: The range is logarithmic.
        total: What the experts' values add up to; None: they are free.
    """

    name: str
    groups: LayerGroups
    components: tuple[str | None, ...]
    experts: tuple[str | None, ...]
    spans: tuple[tuple[float, float], ...]
    log: bool = False
    total: float | None = None

    @cached_property
    def places(self) -> Mapping[str, Place]:
        """Dimension → its place among the coordinates, in a fixed order."""
        found: dict[str, Place] = {}
        for r, row in enumerate(self._rows()):
            for c, component in enumerate(self.components):
                for e, expert in enumerate(self.experts):
                    if self.spans[e][0] < self.spans[e][1]:
                        parts = (self.name, expert, row, component)
                        found["/".join(part for part in parts if part)] = (r, c, e)
        return found

    def distributions(self) -> dict[str, FloatDistribution]:
        """Return the range of each dimension."""
        return {
            name: FloatDistribution(*self.spans[expert], log=self.log)
            for name, (_, _, expert) in self.places.items()
        }

    def coordinates(self, params: Mapping[str, float]) -> Numbers:
        """Return the coordinates of a point, the fixed ones among them; [rows, components, experts]."""
        found = self._fixed.copy()
        found[self._index] = [params[name] for name in self.places]
        return found

    def constant(self, values: Numbers) -> Numbers:
        """Return the coordinates of values that are the same in all groups and components.

        Args:
            values: Shape [experts].
        """
        shape = (len(self.groups), len(self.components), len(self.experts))
        return np.broadcast_to(values, shape).copy()

    def params(self, coordinates: Numbers) -> dict[str, float]:
        """Return the point of coordinates, each put back into its range."""
        return {
            name: float(np.clip(coordinates[place], *self.spans[place[2]]))
            for name, place in self.places.items()
        }

    def values(self, params: Mapping[str, float], part: Numbers | None = None) -> Numbers:
        """Return the values at a point, [groups, components, experts].

        Args:
            params: A value for each dimension.
            part: 1 for each expert that takes part, 0 for another, shape [experts]; None: all do. With
                it the values have an axis of experts even if the parameter does not differ by them.
        """
        found = self.coordinates(params)
        found = found if part is None else found * part
        return found if self.total is None else scaled(found, self.total, self._part(part))

    def gradients(
        self, params: Mapping[str, float], part: Numbers | None, by_value: Numbers
    ) -> dict[str, float]:
        """Return the gradient by each dimension from the gradients by the values.

        Args:
            params: The point.
            part: As for `values`.
            by_value: Over all of the space's groups and components, and the experts (one for a parameter
                that all models share); axes that the values do not have are summed over.
        """
        free = self.coordinates(params)
        found = free if part is None else free * part
        gradients = _summed(by_value, found.shape)
        if self.total is not None:
            gradients = scaled_gradients(found, self.total, self._part(part), gradients)
        if part is not None:
            gradients = _summed(gradients * part, free.shape)
        return {name: float(gradients[place]) for name, place in self.places.items()}

    @cached_property
    def low(self) -> Numbers:
        """Smallest value of each expert, shape [experts]."""
        return np.array([low for low, _ in self.spans], dtype=np.float64)

    @cached_property
    def high(self) -> Numbers:
        """Largest value of each expert, shape [experts]."""
        return np.array([high for _, high in self.spans], dtype=np.float64)

    @cached_property
    def _fixed(self) -> Numbers:
        """Coordinates of which those without a dimension are right."""
        return self.constant(self.low)

    @cached_property
    def _index(self) -> tuple[NDArray[np.intp], ...]:
        """The places as one index."""
        return tuple(np.array(list(self.places.values()), dtype=np.intp).reshape(-1, 3).T)

    def _rows(self) -> tuple[str | None, ...]:
        if len(self.groups) == 1:
            return (None,)
        return tuple(f"{start}-{stop}" for start, stop in self.groups)

    def _part(self, part: Numbers | None) -> Numbers:
        return np.ones(len(self.experts)) if part is None else part


def searched(
    settings: campaign.SpaceSettings,
    family: Family,
    methods: Mapping[str, Method],
    groups: LayerGroups,
) -> tuple[Searched, ...]:
    """Return the parameters that have a value in each place of their own: all but plain fixed ones.

    Args:
        settings: The campaign's `space`.
        family: The models.
        methods: Facts on each method of `settings.method`.
        groups: Groups of layers.
    """
    found = []
    for name, setting in settings.parameters.items():
        if isinstance(setting, campaign.Range):
            found.append(_of_range(name, setting, settings, family, methods, groups))
        elif settings.subsets and name == WEIGHT:  # 0 for an expert that takes no part
            spans = ((float(setting), float(setting)),) * len(family.experts)
            whole = ((0, family.num_layers),)
            found.append(Searched(name, whole, (None,), tuple(family.experts), spans))
    return tuple(found)


def middle(one: FloatDistribution) -> float:
    """Return the middle of a range: of a logarithmic one the geometric mean of its ends."""
    return math.sqrt(one.low * one.high) if one.log else (one.low + one.high) / 2


def brought_within(
    params: Mapping[str, float], distributions: Mapping[str, FloatDistribution]
) -> dict[str, float] | None:
    """Return a point with each number brought into its range; None: its dimensions are others."""
    if params.keys() != distributions.keys():
        return None
    return {name: min(max(params[name], one.low), one.high) for name, one in distributions.items()}


def is_per_source(name: str, methods: Mapping[str, Method]) -> bool:
    """Tell whether each model has a value of its own for a parameter, in any of the methods."""
    facts = [method.parameters.get(name) for method in methods.values()]
    return any(fact.per_source for fact in facts if fact is not None)


def is_differentiable(name: str, methods: Mapping[str, Method]) -> bool:
    """Tell whether some method has gradients by a parameter."""
    return any(has_gradient(name, method) for method in methods.values())


def has_gradient(name: str, method: Method) -> bool:
    """Tell whether a method takes a parameter and has gradients by it."""
    taken = method.parameters.get(name)
    return taken is not None and method.gradients is not None and taken.differentiable


def scaled(values: Numbers, total: float, part: Numbers) -> Numbers:
    """Return values of the sum `total`; where all are 0, equal shares for those that take part.

    Args:
        values: At least 0, the experts along the last axis; 0 for one that takes no part.
        total: What they shall add up to.
        part: 1 for an expert that takes part, 0 for another; shape [experts].
    """
    found = values.sum(axis=-1, keepdims=True)
    equal = np.broadcast_to(part / part.sum(), values.shape)
    shares: Numbers = np.divide(values, found, out=equal.copy(), where=found > 0)
    return shares * total


def scaled_gradients(values: Numbers, total: float, part: Numbers, gradients: Numbers) -> Numbers:
    """Return gradients by the values from gradients by what `scaled` makes of them.

    With v_e = s r_e / R the gradient by r_e is s / R (g_e - Σ_k g_k r_k / R). Where R is 0, v jumps; there
    the answer is the one of equal values that add up to s, which points the right way.

    Args:
        values: As for `scaled`.
        total: As for `scaled`.
        part: As for `scaled`.
        gradients: By the scaled values, shaped as `values`.
    """
    found = values.sum(axis=-1, keepdims=True)
    share = scaled(values, 1.0, part)
    mean = (gradients * share).sum(axis=-1, keepdims=True)
    by_value: Numbers = (gradients - mean) * total / np.where(found > 0, found, total)
    return by_value


def within(values: Numbers, high: Numbers) -> Numbers:
    """Return the values in the same proportions, small enough for none to exceed its `high`.

    Args:
        values: At least 0, the experts along the last axis.
        high: Largest value of each expert, above 0; shape [experts].
    """
    excess = (values / high).max(axis=-1, keepdims=True)
    kept: Numbers = values / np.maximum(excess, 1.0)
    return kept


def _of_range(
    name: str,
    setting: campaign.Range,
    settings: campaign.SpaceSettings,
    family: Family,
    methods: Mapping[str, Method],
    groups: LayerGroups,
) -> Searched:
    by_expert = "expert" in setting.per and is_per_source(name, methods)
    by_component = "component" in setting.per and bool(settings.components)
    experts: tuple[str | None, ...] = tuple(family.experts) if by_expert else (None,)
    return Searched(
        name=name,
        groups=groups if "layer" in setting.per else ((0, family.num_layers),),
        components=(*settings.components, REST) if by_component else (None,),
        experts=experts,
        spans=tuple(_span(setting, expert) for expert in experts),
        log=setting.log,
        total=setting.sum,
    )


def _span(setting: campaign.Range, expert: str | None) -> tuple[float, float]:
    own = setting.experts.get(expert, setting) if expert is not None else setting
    if isinstance(own, campaign.Bounds):
        return own.low, own.high
    return float(own), float(own)


def _summed(table: Numbers, shape: tuple[int, ...]) -> Numbers:
    """Sum over the axes that have length 1 in `shape`."""
    axes = tuple(axis for axis, length in enumerate(shape) if length == 1)
    found: Numbers = table.sum(axis=axes, keepdims=True)
    return found
