"""Mixtures of experts as a rectangle of numbers: their own, and those of the merge that experts share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from optuna.distributions import FloatDistribution

from evomerge import config as campaign
from evomerge.candidate import Coefficients, Merge, Mixture
from evomerge.candidate.trial import Gradients
from evomerge.space.baselines import BASE, BEST, Baseline, average, baselines, parent
from evomerge.space.choices import FIRST
from evomerge.space.dimensions import Family, brought_within, middle
from evomerge.space.needs import Needs
from evomerge.space.space import Space

AVERAGE = "average"
TOP_K, TEMPERATURE, SHARE = "top_k", "temperature", "share"
Searched = campaign.Range | float


@dataclass(frozen=True)
class MixtureSpace:
    """Distributions of a campaign of mixtures, and the candidates of their points.

    Attributes:
        family: The models.
        members: What the feed-forward blocks come from: names of experts, `base`, `best`.
        own: `top_k`, `temperature`, `share` → its range, or its value.
        shared: What everything else comes from: `base`, `best`, `average`, or a space of merges.
    """

    family: Family
    members: tuple[str, ...]
    own: Mapping[str, Searched]
    shared: Space | str = BEST

    @cached_property
    def distributions(self) -> Mapping[str, FloatDistribution]:
        """Dimension → its range. Of whole numbers each has an equal part."""
        found = {}
        for name, value in self.own.items():
            if isinstance(value, campaign.Range):
                margin = 0.5 if name == TOP_K else 0.0
                found[name] = FloatDistribution(
                    value.low - margin, value.high + margin, log=value.log
                )
        return found if isinstance(self.shared, str) else {**found, **self.shared.distributions}

    @property
    def differentiable(self) -> tuple[str, ...]:
        """No dimension has a gradient."""
        return ()

    @property
    def regions(self) -> None:
        """All numbers count, a temperature less where one expert answers."""
        return

    @property
    def needs(self) -> Needs:
        """The base as it is stands beside the mixture, which has the blocks of all members."""
        shared = self.own[SHARE] != 0
        blocks = len(self.members) - 1 + shared
        return Needs(
            prompts=True,
            scores=True,
            whole_models=2,
            feed_forwards=blocks,
            best_merge=BEST in (self.shared, *self.members),
            statistics=frozenset()
            if isinstance(self.shared, str)
            else self.shared.needs.statistics,
        )

    @property
    def takes_rows(self) -> bool:
        """Rows have no weights of their own."""
        return False

    def candidate(
        self,
        params: Mapping[str, float],
        coefficients: Coefficients | None = None,
        best: Merge | None = None,
    ) -> Mixture:
        """Return the mixture of a point, whose gates are not fitted yet.

        Args:
            params: A value for each of `distributions`.
            coefficients: None.
            best: The best merge so far; None: the uniform average stands for it.
        """
        best = best or average(self.family)
        known = {BASE: parent(self.family, self.family.base), BEST: best}
        known |= {name: parent(self.family, model) for name, model in self.family.experts.items()}
        shared = self.shared
        if isinstance(shared, str):
            rest = average(self.family) if shared == AVERAGE else known[shared]
        else:
            rest = shared.candidate(params)
        return Mixture(
            self.family.base,
            rest,
            {name: known[name] for name in self.members},
            top_k=self._top_k(params),
            temperature=self._value(TEMPERATURE, params),
            share=self._value(SHARE, params),
        )

    def gradient(self, params: Mapping[str, float], gradients: Gradients) -> dict[str, float]:
        """There is none."""
        return {}

    def baselines(self) -> tuple[Baseline, ...]:
        """Return parents and naive merges, which do not lie in this space."""
        return baselines(self.family, lambda method, wanted: None)

    def first(self) -> tuple[dict[str, float], ...]:
        """Return the middle of its own ranges with task arithmetic of `FIRST`, where merges are searched.

        Where it does not lie in their space, with where a search of merges begins.
        """
        if isinstance(self.shared, str):
            return ()
        amidst = {name: middle(one) for name, one in self.distributions.items()}
        rows = self.shared.baselines()
        found = [row.params for row in rows if row.scale == FIRST and row.params is not None]
        return tuple({**amidst, **point} for point in found or self.shared.first())

    def taken_over(
        self, settings: campaign.Campaign, params: Mapping[str, float]
    ) -> dict[str, float] | None:
        """Return the same point of an earlier campaign whose dimensions are these; else None."""
        return brought_within(params, self.distributions)

    def _top_k(self, params: Mapping[str, float]) -> int:
        setting = self.own[TOP_K]
        if not isinstance(setting, campaign.Range):
            return int(setting)
        return min(int(setting.high), math.floor(params[TOP_K] + 0.5))

    def _value(self, name: str, params: Mapping[str, float]) -> float:
        setting = self.own[name]
        return params[name] if isinstance(setting, campaign.Range) else float(setting)
