"""Ensembles as a rectangle of numbers: of a router its layer and margin, of a mix weights and temperature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from optuna.distributions import FloatDistribution

from evomerge import config as campaign
from evomerge.candidate import Coefficients, Merge
from evomerge.candidate.ensemble import Ensemble, Mix, Router
from evomerge.candidate.trial import Gradients
from evomerge.space.baselines import BASE, BEST, Baseline, baselines, parent
from evomerge.space.dimensions import Family, Searched, brought_within
from evomerge.space.needs import Needs

AVERAGE = "uniform average"
"""The baseline that stands for the best merge while none was scored."""


@dataclass(frozen=True)
class EnsembleSpace:
    """Distributions of a campaign of ensembles, and the candidates of their points.

    Attributes:
        family: The models.
        members: Names of the members: experts, `base`, `best`.
        combiner: `router` or `mix`.
        over: What a mix averages.
        searched: Parameter → its values; `weight` has one a member.
    """

    family: Family
    members: tuple[str, ...]
    combiner: campaign.Combiner
    over: campaign.Over
    searched: Mapping[str, Searched]

    differentiable: tuple[str, ...] = ()
    regions: None = None
    takes_rows: bool = False

    @classmethod
    def build(
        cls, settings: campaign.SpaceSettings, family: Family, members: tuple[str, ...]
    ) -> EnsembleSpace:
        """Lay out the dimensions of settings whose parameters are those of the combiner."""
        defaults: dict[str, campaign.Searched]
        if settings.combiner == "router":
            defaults = {
                "layer": campaign.Range(low=0, high=family.num_layers),
                "margin": campaign.Range(low=0, high=1),
            }
        else:
            defaults = {
                "weight": campaign.Range(low=0, high=1),
                "top_k": len(members),
                "temperature": 1.0,
            }
        found = {}
        for name, setting in (defaults | dict(settings.parameters)).items():
            owners: tuple[str | None, ...] = members if name == "weight" else (None,)
            spans = tuple(_span(setting, owner) for owner in owners)
            log = isinstance(setting, campaign.Range) and setting.log
            found[name] = Searched(name, ((0, family.num_layers),), (None,), owners, spans, log)
        return cls(family, members, settings.combiner, settings.over, found)

    @cached_property
    def distributions(self) -> Mapping[str, FloatDistribution]:
        """Dimension → its range; a whole number is the nearest one."""
        return {
            name: found
            for one in self.searched.values()
            for name, found in one.distributions().items()
        }

    @property
    def needs(self) -> Needs:
        """A router reads prompts and learns from scores; a mix holds the members that run."""
        if self.combiner == "router":
            return Needs(prompts=True, scores=True)
        most = round(float(self.searched["top_k"].high[0]))
        return Needs(whole_models=1 + most, best_merge=BEST in self.members)

    def candidate(
        self,
        params: Mapping[str, float],
        coefficients: Coefficients | None = None,
        best: Merge | None = None,
    ) -> Ensemble:
        """Return the ensemble of a point; a router has learnt nothing yet.

        Args:
            params: A value for each of `distributions`.
            coefficients: Ignored.
            best: The campaign's best merge; None: the uniform average stands in its place.
        """
        models = self._models | ({} if best is None else {BEST: best})
        members = {name: models[name] for name in self.members}
        found = {name: one.values(params)[0, 0] for name, one in self.searched.items()}
        if self.combiner == "router":
            fallback = BEST if BEST in members else None
            router = Router(round(float(found["layer"][0])), fallback, float(found["margin"][0]))
            return Ensemble(self.family.base, members, router)
        weights = found["weight"].tolist()
        if not any(weights):
            weights = [1.0] * len(members)
        mix = Mix(
            dict(zip(members, weights, strict=True)),
            self.over,
            round(float(found["top_k"][0])),
            float(found["temperature"][0]),
        )
        return Ensemble(self.family.base, members, mix=mix)

    def gradient(self, params: Mapping[str, float], gradients: Gradients) -> dict[str, float]:
        """Return nothing: there are no gradients."""
        return {}

    def baselines(self) -> tuple[Baseline, ...]:
        """Return parents and naive merges; of a mix a parent is the point where it alone has a weight."""
        if self.combiner == "router":
            return self._baselines
        return tuple(replace(one, params=self._point(one)) for one in self._baselines)

    def first(self) -> tuple[dict[str, float], ...]:
        """Return no points: of a mix, parents are good places to start at."""
        return ()

    def taken_over(
        self, settings: campaign.Campaign, params: Mapping[str, float]
    ) -> dict[str, float] | None:
        """Return the point itself where an earlier campaign searched the same dimensions."""
        return brought_within(params, self.distributions)

    def _point(self, parent: Baseline) -> dict[str, float] | None:
        name = BASE if parent.role == "base" else parent.name
        if parent.role == "baseline" or name not in self.members:
            return None
        weights = np.array([float(one == name) for one in self.members])
        most = self.searched["top_k"].high
        wanted = {"weight": weights, "top_k": most, "temperature": np.ones(1)}
        point: dict[str, float] = {}
        for key, values in wanted.items():
            one = self.searched[key]
            if not ((one.low <= values) & (values <= one.high)).all():
                return None
            point |= one.params(one.constant(values))
        return {name: point[name] for name in self.distributions}

    @cached_property
    def _baselines(self) -> tuple[Baseline, ...]:
        return baselines(self.family, lambda method, wanted: None)

    @cached_property
    def _models(self) -> dict[str, Merge]:
        """What the members are called → model; of the best merge what stands in its place."""
        (average,) = (one.candidate for one in self._baselines if one.name == AVERAGE)
        assert isinstance(average, Merge)
        models = {BASE: self.family.base, **self.family.experts}
        return {name: parent(self.family, model) for name, model in models.items()} | {
            BEST: average
        }


def _span(setting: campaign.Searched, member: str | None) -> tuple[float, float]:
    own: campaign.Searched | campaign.Bounds | float = setting
    if isinstance(setting, campaign.Range) and member is not None:
        own = setting.experts.get(member, setting)
    if isinstance(own, campaign.Bounds):
        return own.low, own.high
    return float(own), float(own)
