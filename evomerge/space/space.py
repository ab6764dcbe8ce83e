"""The searched space as a fixed rectangle of numbers, and the way from its points to recipes.

Every dimension is a float that is present in every trial, a searched method included: each method
has a score in [0, 1] and the highest is taken. So no sampler falls back to independent or random
sampling for a parameter that is not always there, and no order of the methods is made up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from optuna.distributions import FloatDistribution

from evomerge import campaign
from evomerge.recipe import Conditional, Recipe, Scalar, Setting, Slice, Source
from evomerge.space.baselines import Baseline, Wanted, baselines
from evomerge.space.groups import LayerGroups, layer_groups

REST = "rest"


class ParameterFacts(Protocol):
    """What the space must know of a method's parameter: does it differ by model?"""

    @property
    def per_source(self) -> bool:
        """Whether each model has a value of its own."""


class MethodFacts(Protocol):
    """What the space must know of a method."""

    @property
    def parameters(self) -> Mapping[str, ParameterFacts]:
        """The parameters that it takes."""

    @property
    def needs_base(self) -> bool:
        """Whether it merges task vectors, or anything else that needs the base."""


@dataclass(frozen=True)
class Family:
    """The models, as recipes name them.

    Attributes:
        base: A folder or a Hub id.
        experts: Name → folder, Hub id, or `MODEL+ADAPTER`.
        num_layers: Layers of each.
        dtype: Of the merged weights.
    """

    base: str
    experts: Mapping[str, str]
    num_layers: int
    dtype: str


@dataclass(frozen=True)
class _Dimension:
    """One searched number: a parameter in one group, for one expert or (None) for all."""

    parameter: str
    expert: str | None
    layers: tuple[int, int] | None
    component: str | None

    @property
    def name(self) -> str:
        parts = [self.parameter, self.expert, self.layers and "-".join(map(str, self.layers))]
        return "/".join(part for part in [*parts, self.component] if part)


@dataclass(frozen=True)
class Space:
    """Distributions of a campaign, and the recipes of their points.

    Attributes:
        settings: The campaign's `space`.
        family: The models.
        methods: Facts on each method of `settings.method`.
        groups: [start, stop) of each group of layers.
        distributions: Dimension → distribution, in a fixed order.
        seed: Of the random masks, the same in all trials.
    """

    settings: campaign.Space
    family: Family
    methods: Mapping[str, MethodFacts]
    groups: LayerGroups
    distributions: Mapping[str, FloatDistribution]
    seed: int

    @classmethod
    def build(
        cls,
        settings: campaign.Space,
        family: Family,
        methods: Mapping[str, MethodFacts],
        seed: int = 0,
    ) -> Space:
        """Lay out the dimensions.

        Args:
            settings: The campaign's `space`.
            family: The models.
            methods: Facts on (at least) each method of `settings.method`.
            seed: Of the random masks.

        Raises:
            CampaignError: The layer groups do not fit the models.
        """
        groups = layer_groups(settings.layers, family.num_layers)
        space = cls(settings, family, methods, groups, {}, seed)
        distributions = {
            f"method/{method}": FloatDistribution(0.0, 1.0)
            for method in settings.method
            if len(settings.method) > 1
        }
        for parameter, setting in settings.parameters.items():
            if isinstance(setting, campaign.Range):
                for dimension in space._dimensions(parameter, setting):
                    distributions[dimension.name] = FloatDistribution(
                        setting.low, setting.high, log=setting.log
                    )
        return cls(settings, family, methods, groups, distributions, seed)

    def method(self, params: Mapping[str, float]) -> str:
        """Return the method at a point: the one with the highest score, the first of equals."""
        names = self.settings.method
        return names[0] if len(names) == 1 else max(names, key=lambda m: params[f"method/{m}"])

    def recipe(self, params: Mapping[str, float]) -> Recipe:
        """Return the recipe of a point.

        Args:
            params: A value for each of `distributions`.
        """
        method = self.method(params)
        takes = self.methods[method].parameters
        fixed = {
            name: value
            for name, value in self.settings.parameters.items()
            if name in takes and not isinstance(value, campaign.Range)
        }
        slices = tuple(self._slice(method, group, params) for group in self.groups)
        return Recipe(
            method=method,
            slices=slices,
            base_model=self.family.base if self.methods[method].needs_base else None,
            parameters=fixed,
            dtype=self.family.dtype,
            seed=self.seed,
        )

    def baselines(self) -> tuple[Baseline, ...]:
        """Return parents and naive merges, each with its point where it lies in this space."""
        family = self.family
        return baselines(family.base, family.experts, family.dtype, self._locate)

    def _dimensions(self, parameter: str, setting: campaign.Range) -> Iterator[_Dimension]:
        by_layer = "layer" in setting.per and len(self.groups) > 1
        by_component = "component" in setting.per and bool(self.settings.components)
        by_expert = "expert" in setting.per and self._per_source(parameter)
        for group in self.groups if by_layer else (None,):
            for component in (*self.settings.components, REST) if by_component else (None,):
                for expert in self.family.experts if by_expert else (None,):
                    yield _Dimension(parameter, expert, group, component)

    def _per_source(self, parameter: str) -> bool:
        facts = [method.parameters.get(parameter) for method in self.methods.values()]
        return any(fact.per_source for fact in facts if fact is not None)

    def _slice(self, method: str, group: tuple[int, int], params: Mapping[str, float]) -> Slice:
        facts = self.methods[method]
        sources = [Source(self.family.base, group)] if facts.needs_base else []
        for expert, model in self.family.experts.items():
            own = self._settings_of(method, group, params, expert)
            sources.append(Source(model, group, own))
        shared = self._settings_of(method, group, params, None)
        return Slice(sources=tuple(sources), parameters=shared)

    def _settings_of(
        self, method: str, group: tuple[int, int], params: Mapping[str, float], expert: str | None
    ) -> dict[str, Setting]:
        """Return the searched settings of one expert, or (None) those shared by all sources."""
        own: dict[str, Setting] = {}
        for parameter, setting in self.settings.parameters.items():
            facts = self.methods[method].parameters.get(parameter)
            if facts is None or not isinstance(setting, campaign.Range):
                continue
            if facts.per_source == (expert is not None):
                own[parameter] = self._setting(parameter, setting, group, params, expert)
        return own

    def _setting(
        self,
        parameter: str,
        setting: campaign.Range,
        group: tuple[int, int],
        params: Mapping[str, float],
        expert: str | None,
    ) -> Setting:
        layers = group if "layer" in setting.per and len(self.groups) > 1 else None
        who = expert if "expert" in setting.per else None
        if "component" not in setting.per or not self.settings.components:
            return params[_Dimension(parameter, who, layers, None).name]
        values = [
            Conditional(params[_Dimension(parameter, who, layers, component).name], component)
            for component in self.settings.components
        ]
        rest = params[_Dimension(parameter, who, layers, REST).name]
        return (*values, Conditional(rest))

    def _locate(self, method: str, wanted: Wanted) -> dict[str, float] | None:
        """Return the point whose model is `method` with the `wanted` values; None if there is none."""
        if method not in self.settings.method:
            return None
        point: dict[str, float] = {}
        if len(self.settings.method) > 1:
            point = {f"method/{name}": float(name == method) for name in self.settings.method}
        for parameter, setting in self.settings.parameters.items():
            if not isinstance(setting, campaign.Range):
                takes = parameter in self.methods[method].parameters
                if takes and not _is(wanted, parameter, setting, self.family.experts):
                    return None
                continue
            for dimension in self._dimensions(parameter, setting):
                value = wanted.value(parameter, dimension.expert)
                if parameter not in self.methods[method].parameters:
                    value = (setting.low + setting.high) / 2  # not read by this method
                if value is None or not setting.low <= value <= setting.high:
                    return None
                point[dimension.name] = value
        return point


def _is(wanted: Wanted, parameter: str, fixed: Scalar, experts: Mapping[str, str]) -> bool:
    values = [wanted.value(parameter, expert) for expert in experts]
    return all(value is not None and value == fixed for value in values)
