"""A campaign's aims on one split: from an outcome to what the search is told, and what is chosen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from evomerge.candidate import Candidate, Size
from evomerge.candidate.trial import Outcome, Split
from evomerge.config import Campaign, CostName, KeepCost, Objective
from evomerge.errors import CampaignError
from evomerge.objective.constraints import total_violation, violations
from evomerge.objective.costs import relative_cost
from evomerge.objective.dominance import order
from evomerge.objective.references import Recorded, References
from evomerge.objective.values import (
    Better,
    higher_is_better,
    metric_on,
    ratio,
    recorded_directions,
    weighted_mean,
)

Direction = Literal["maximize", "minimize"]


class Tried(Protocol):
    """What has a candidate, such as the store's `StoredTrial`."""

    @property
    def candidate(self) -> Candidate:
        """It."""


@dataclass(frozen=True)
class Objectives:
    """Objectives, constraints and costs of a campaign, measured by its parents on one split.

    Attributes:
        campaign: Its `objectives`, `mode`, `normalize`, `keep` and `costs`.
        references: Parents and baselines on the split.
        split: `search`: the searched metrics count; `select` and `holdout`: those that are reported.
        better: Direction of each task's metric.
        size: Of the base.
    """

    campaign: Campaign
    references: References = field(default_factory=References)
    split: Split = "search"
    better: Better = higher_is_better
    size: Size = field(default_factory=Size)

    @classmethod
    def of(
        cls,
        campaign: Campaign,
        facts: Mapping[str, Any],
        evaluations: Iterable[Recorded],
        split: Split,
    ) -> Objectives:
        """Set the objectives up from what a store holds.

        Args:
            campaign: The store's.
            facts: The store's: `higher_is_better`, and `size` (`Size.to_json`) where costs count weights.
            evaluations: What was recorded of parents and baselines.
            split: Of the items.
        """
        references = References.of(evaluations, split)
        better, size = recorded_directions(facts), Size.from_json(facts.get("size"))
        return cls(campaign, references, split, better, size)

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The study's: one of the weighted mean, or (Pareto) one an objective; of a front one a cost, too."""
        if self.campaign.mode == "mean":
            return ("maximize",)
        upward = [True]
        if self.campaign.mode == "pareto":
            upward = [self._higher(goal) for goal in self._goals]
        upward += [False] * len(self.campaign.costs)
        return tuple("maximize" if up else "minimize" for up in upward)

    def values(self, outcome: Outcome, candidate: Candidate | None = None) -> tuple[float, ...]:
        """Return what the study is told of an outcome.

        Args:
            outcome: Without a failure.
            candidate: The model, for the costs in parameters.

        Returns:
            The weighted mean (a metric better when lower counted negatively, or every value as a share of
            the best expert's), less weight · cost; of a tradeoff the mean, and one value a cost; in Pareto
            mode one value an objective, as it is, and one a cost. Some may be NaN or infinite where a metric
            is.
        """
        values = tuple(self._value(outcome, goal) for goal in self._goals)
        costs = self.costs(outcome, candidate)
        if self.campaign.mode == "pareto":
            return (*values, *costs)
        if self.campaign.mode == "tradeoff":
            return (self._mean_of(values), *costs)
        return (self._mean_of(values) - self.charge(costs),)

    def quality(self, outcome: Outcome) -> float:
        """Return the weighted mean of an outcome, costs apart; more is better.

        Returns:
            -inf where the outcome failed, or a value is missing or not finite.
        """
        known = [
            scores.values[metric].value
            for goal in self._goals
            if (scores := outcome.scores.get(goal.task)) is not None
            and (metric := metric_on(goal, self.split)) in scores.values
        ]
        whole = outcome.failure is None and len(known) == len(self._goals)
        return self._mean_of(known) if whole and all(map(math.isfinite, known)) else -math.inf

    def charge(self, costs: Sequence[float]) -> float:
        """Return Σ weight · cost, which costs take off the mean."""
        pairs = zip(self.campaign.costs, costs, strict=True)
        return math.fsum(setting.weight * cost for setting, cost in pairs)

    def costs(self, outcome: Outcome, candidate: Candidate | None = None) -> tuple[float, ...]:
        """Return the campaign's costs, each relative to the base's."""
        return tuple(self.cost(one.cost, outcome, candidate) for one in self.campaign.costs)

    def cost(self, name: CostName, outcome: Outcome, candidate: Candidate | None = None) -> float:
        """Return one cost, relative to the base's."""
        return relative_cost(name, outcome, candidate, self.references, self.size)

    def weighed(self, trial: Tried) -> Candidate | None:
        """Return the candidate of a trial where its weights count: not all need be read elsewhere."""
        return trial.candidate if self.campaign.asked_costs else None

    def violations(self, outcome: Outcome, candidate: Candidate | None = None) -> tuple[float, ...]:
        """Return by how much each constraint is missed; met where at most 0; empty without constraints.

        Args:
            outcome: Without a failure.
            candidate: The model, for constraints on its parameters.
        """
        costs = {name: self.cost(name, outcome, candidate) for name in self.campaign.kept_costs}
        return violations(self.campaign, outcome, self.references, self.split, self.better, costs)

    def mean(self, values: Sequence[float]) -> float:
        """Return the one number, more is better, that orders what no front orders.

        Args:
            values: As `values` returns them; in the modes of a front costs play no part.
        """
        if self.campaign.mode != "pareto":
            return values[0]
        return self._mean_of(values[: len(self._goals)])

    def weight(self, goal: Objective) -> float:
        """Return an objective's weight in the mean of values as they are."""
        if self.campaign.mode == "pareto" or self.campaign.normalize == "none":
            return goal.weight
        metric, higher = metric_on(goal, self.split), self._higher(goal)
        best = self.references.best_value("best_expert", goal.task, metric, higher=higher)
        return goal.weight if best is None or best <= 0 else goal.weight / best

    def order(
        self, values: Sequence[Sequence[float]], violations: Sequence[Sequence[float]]
    ) -> list[tuple[int, int]]:
        """Return (row, front) from best to worst, as `dominance.order` does.

        A constraint that is unknown for every row does not order them.

        Args:
            values: Of each row, as `values` returns them.
            violations: Of each row, as `violations` returns them.
        """
        signs = [1.0 if direction == "maximize" else -1.0 for direction in self.directions]
        upward = [[s * value for s, value in zip(signs, row, strict=True)] for row in values]
        known = [[row[at] for at in _told(violations)] for row in violations]
        missing = [total_violation(row) for row in known]
        return order(upward, [self.mean(row) for row in values], missing)

    def check(self) -> None:
        """Make sure that what the campaign asks for can be measured by its parents.

        Raises:
            CampaignError: Naming the field and the reason.
        """
        if self.campaign.normalize == "best_expert":
            for goal in self._goals:
                self._check_divisor(goal)
        for position, keep in enumerate(self.campaign.keep):
            if isinstance(keep, KeepCost):
                self._check_cost(keep.cost, f"keep.{position}.cost")
                continue
            goal = next(goal for goal in self._goals if goal.task == keep.task)
            metric, higher = metric_on(goal, self.split), self._higher(goal)
            if self.references.reference(keep.of, keep.task, metric, higher=higher) is None:
                raise CampaignError(
                    f'{keep.of} has no {metric} on "{keep.task}" ({self.split} items), so the '
                    "constraint cannot be judged; see why it failed, or take another reference",
                    field=f"keep.{position}.of",
                )
        for position, cost in enumerate(self.campaign.costs):
            self._check_cost(cost.cost, f"costs.{position}.cost")

    @property
    def _goals(self) -> tuple[Objective, ...]:
        return self.campaign.objectives

    def _higher(self, goal: Objective) -> bool:
        return self.better(goal.task, metric_on(goal, self.split))

    def _value(self, outcome: Outcome, goal: Objective) -> float:
        return outcome.scores[goal.task].values[metric_on(goal, self.split)].value

    def _mean_of(self, values: Sequence[float]) -> float:
        pairs = zip(self._goals, values, strict=True)
        return weighted_mean(self._goals, [self._upward(goal, value) for goal, value in pairs])

    def _upward(self, goal: Objective, value: float) -> float:
        """Return a value of which more is better: a share of the best expert's where that is asked."""
        higher, metric = self._higher(goal), metric_on(goal, self.split)
        if self.campaign.normalize == "best_expert":
            best = self.references.best_value("best_expert", goal.task, metric, higher=higher)
            share = None if best is None else ratio(value, best, metric, higher=higher)
            if share is not None:
                return share
        return value if higher else -value

    def _check_cost(self, cost: CostName, field: str) -> None:
        base = self.references.base
        if cost == "generated_tokens" and (base is None or not base.cost.tokens_per_item):
            why = "the base could not be scored" if base is None else "the base spent none"
            raise CampaignError(
                f"{cost} is counted relative to the base's, but {why} on the {self.split} "
                "items; leave this cost out"
                + (", or search on a metric that generates" if base is not None else ""),
                field=field,
            )

    def _check_divisor(self, goal: Objective) -> None:
        metric, higher = metric_on(goal, self.split), self._higher(goal)
        best = self.references.best_value("best_expert", goal.task, metric, higher=higher)
        if best is not None and ratio(best, best, metric, higher=higher) is not None:
            return
        found = "no expert has a value" if best is None else f"the best expert has {best:g}"
        raise CampaignError(
            f'{found} of {metric} on "{goal.task}" ({self.split} items), by which nothing can be '
            "divided; take normalize: none, or another metric",
            field="normalize",
        )


def _told(violations: Sequence[Sequence[float]]) -> list[int]:
    """Return which constraints tell rows apart: all but those that are unknown of every row."""
    count = min(map(len, violations), default=0)
    return [at for at in range(count) if any(math.isfinite(row[at]) for row in violations)]
