"""The searched space as a fixed rectangle of numbers, and the way from its points to candidates and back.

Every dimension is a float that is present in every trial, a searched method included (`choices`), so
samplers never meet a parameter that is not always there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from optuna.distributions import FloatDistribution

from evomerge import config as campaign
from evomerge.candidate import Coefficients, Merge
from evomerge.candidate.merge import Own, Shared, tuples
from evomerge.candidate.recipe import STATISTICS
from evomerge.candidate.trial import Gradients
from evomerge.merge.methods import METHODS, Method
from evomerge.merge.methods.core_space import CORE_SPACE
from evomerge.space import choices
from evomerge.space.baselines import Baseline, Wanted, baselines, located
from evomerge.space.dimensions import (
    WEIGHT,
    Family,
    Searched,
    has_gradient,
    is_differentiable,
    middle,
    searched,
)
from evomerge.space.groups import LayerGroups, Numbers, layer_groups
from evomerge.space.needs import Needs
from evomerge.space.regions import Regions
from evomerge.space.rules import check_settings
from evomerge.space.transfer import transfer


@dataclass(frozen=True)
class Space:
    """Distributions of a campaign, and the candidates of their points.

    Attributes:
        settings: The campaign's `space`.
        family: The models.
        methods: Facts on each method of `settings.method`.
        groups: [start, stop) of each group of layers.
        searched: The searched parameters.
        distributions: Dimension → distribution, in a fixed order.
        seed: Of the random masks; the same in all trials.
    """

    settings: campaign.SpaceSettings
    family: Family
    methods: Mapping[str, Method]
    groups: LayerGroups
    searched: tuple[Searched, ...]
    distributions: Mapping[str, FloatDistribution]
    seed: int

    @classmethod
    def build(
        cls,
        settings: campaign.SpaceSettings,
        family: Family,
        methods: Mapping[str, Method],
        seed: int = 0,
    ) -> Space:
        """Lay out the dimensions.

        Args:
            settings: The campaign's `space`.
            family: The models.
            methods: Facts on (at least) each method of `settings.method`.
            seed: Of the random masks.

        Raises:
            CampaignError: The settings do not fit the models or the methods.
        """
        groups = layer_groups(settings.layers, family.num_layers)
        methods = {name: methods[name] for name in settings.method}
        check_settings(settings, family, methods)
        parameters = searched(settings, family, methods, groups)
        optional = family.experts if settings.subsets else ()
        distributions = {
            name: FloatDistribution(0.0, 1.0) for name in choices.names(settings.method, optional)
        }
        for one in parameters:
            distributions |= one.distributions()
        return cls(settings, family, methods, groups, parameters, distributions, seed)

    @classmethod
    def of(
        cls, settings: campaign.Campaign, num_layers: int, methods: Mapping[str, Method]
    ) -> Space:
        """Build the space of a campaign whose models are not at hand, to read its points.

        Its candidates name the models as the campaign file does.

        Args:
            settings: The campaign, such as a stored one.
            num_layers: Layers of its models.
            methods: Facts on (at least) each method that it searched.

        Raises:
            CampaignError: As `build` does.
        """
        models = settings.models
        experts = {expert.name: expert.model for expert in models.experts}
        family = Family(models.base, experts, num_layers, models.dtype)
        return cls.build(settings.space, family, methods, settings.search.seed)

    @property
    def regions(self) -> Regions | None:
        """Methods and subsets of the experts, where points choose one; None: all numbers always count."""
        apart = len(self.settings.method) > 1 or self.settings.subsets
        return choices.Choices(self) if apart else None

    def taken_over(
        self, settings: campaign.Campaign, params: Mapping[str, float]
    ) -> dict[str, float] | None:
        """Return the point most like one of an earlier campaign, by `transfer`; None: there is none."""
        if settings.space.kind != "merge" or not METHODS.keys() >= set(settings.space.method):
            return None  # a method of a user's file, perhaps
        return transfer(Space.of(settings, self.family.num_layers, METHODS), self, params)

    def method(self, params: Mapping[str, float]) -> str:
        """Return the method at a point: the one with the highest score, the first of equals."""
        return choices.chosen(self.settings.method, params)

    @property
    def needs(self) -> Needs:
        """Statistics of the experts on their prompts, where a method reads them."""
        reads = frozenset[str]().union(*map(self.reads, self.methods))
        return Needs(prompts=bool(reads), statistics=reads)

    def reads(self, method: str) -> frozenset[str]:
        """Return what a method reads of the experts' activations."""
        return frozenset(
            spec.reads
            for name, spec in self.methods[method].parameters.items()
            if spec.reads is not None and self.settings.parameters.get(name, spec.default) is True
        )

    def candidate(
        self,
        params: Mapping[str, float],
        coefficients: Coefficients | None = None,
        best: Merge | None = None,
    ) -> Merge:
        """Return the merge of a point.

        Args:
            params: A value for each of `distributions`.
            coefficients: What single tensors and rows add to its weights.
            best: Ignored.
        """
        name = self.method(params)
        method = self.methods[name]
        takes, count = method.parameters, len(self.family.experts)
        own: dict[str, Own] = {}
        shared: dict[str, Shared] = {}
        for one in self.searched:
            if one.name not in takes:
                continue
            values = one.values(params, self.part(one, params))
            if takes[one.name].per_source:
                whole = np.broadcast_to(values, (*values.shape[:2], count))
                own[one.name] = tuples(whole.tolist())
            else:
                shared[one.name] = tuples(values[:, :, 0].tolist())
        fixed = {
            key: value
            for key, value in self.settings.parameters.items()
            if key in takes and key not in self.named and not isinstance(value, campaign.Range)
        }
        vocabulary = self.family.vocabulary
        return Merge(
            method=name,
            experts=tuple(self.family.experts.values()),
            # A union of vocabularies begins with the base's.
            base=self.family.base if method.uses_base or vocabulary is not None else None,
            merges_base=method.uses_base,
            groups=self.groups,
            components=self.settings.components,
            own=own,
            shared=shared,
            fixed=fixed,
            dtype=self.family.dtype,
            vocabulary=vocabulary,
            seed=self.seed,
            coefficients=coefficients,
            statistics=STATISTICS if self.reads(name) else None,
        )

    @property
    def takes_rows(self) -> bool:
        """Whether weights may differ by tensor and row: they are searched, and every method takes it.

        Core matrices have none: their rows are not those of a tensor.
        """
        by_row = self.settings.parameters.get(CORE_SPACE) is not True
        return by_row and WEIGHT in self.named and all(one.rows for one in self.methods.values())

    def middle(self, method: str) -> dict[str, float]:
        """Return the middle of all ranges, with a method chosen."""
        found = {name: middle(one) for name, one in self.distributions.items()}
        return found | choices.choosing(self.settings.method, method)

    def baselines(self) -> tuple[Baseline, ...]:
        """Return parents and naive merges, each with its point where it lies in this space."""
        family = self.family
        return baselines(family, self.locate)

    def first(self) -> tuple[dict[str, float], ...]:
        """Return the method's default point where no naive merge, a better start, lies in this space.

        Nothing where methods or experts are chosen: each arm begins at its own.
        """
        if self.regions is not None or any(row.params is not None for row in self.baselines()):
            return ()
        arms = choices.Choices(self)
        return tuple(map(arms.default_point, arms.first()))

    def locate(self, method: str, wanted: Wanted) -> dict[str, float] | None:
        """Return the point whose model is `method` with the `wanted` values; None if there is none."""
        return located(self, method, wanted)

    @cached_property
    def differentiable(self) -> tuple[str, ...]:
        """The dimensions that have a gradient, in the order of `distributions`.

        They are those of the weights and factors: not densities, the method's scores, or which experts
        take part.
        """
        return tuple(
            name
            for one in self.searched
            if is_differentiable(one.name, self.methods)
            for name in one.places
        )

    def gradient(self, params: Mapping[str, float], gradients: Gradients) -> dict[str, float]:
        """Return the gradient of a loss by each dimension of `differentiable`.

        It is the derivative by the dimension's own value, of logarithmic ranges too; 0 where the model at
        this point does not depend on it (another method is chosen, or the expert takes no part), or its
        method has no gradient by it.

        Args:
            params: The point.
            gradients: By the numbers of its candidate, from a job that did not fail.

        Raises:
            ValueError: `gradients` holds none by a parameter that should have some.
        """
        method = self.methods[self.method(params)]
        found: dict[str, float] = {}
        for one in self.searched:
            if not is_differentiable(one.name, self.methods):
                continue
            if not has_gradient(
                one.name, method
            ):  # the model does not depend on it, or has none by it
                found |= dict.fromkeys(one.places, 0.0)
                continue
            if one.name not in gradients.numbers:
                raise ValueError(f"there is no gradient by {one.name}")
            by_value = np.array(gradients.numbers[one.name], dtype=np.float64)
            found |= one.gradients(params, self.part(one, params), by_value)
        return found

    def part(self, one: Searched, params: Mapping[str, float]) -> Numbers | None:
        """Return which experts take part in a parameter, 1 or 0, [experts]; None: no one is left out."""
        if not self.settings.subsets or one.name != WEIGHT:
            return None
        return choices.taking_part(self.family.experts, params)

    @cached_property
    def named(self) -> Mapping[str, Searched]:
        """The searched parameters by name."""
        return {one.name: one for one in self.searched}
