"""How far a study is: what was asked, told and spent, and the best so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from evomerge.candidate.trial import Outcome
from evomerge.config import Campaign
from evomerge.objective import Ranked, feasible
from evomerge.search.samplers.sampler import Measurement

EXHAUSTED = 50
"""So many trials in a row that repeat recipes of earlier ones: the sampler finds nothing new to try."""

GRADIENT_COST = 3
"""A step reads its items forward and backward; the latter counts as two more item evaluations."""


class Ended(StrEnum):
    """What ended a search."""

    TRIALS = "trials"
    HOURS = "hours"
    ITEMS = "item evaluations"
    TARGET = "target reached"
    EXHAUSTED = "space exhausted"
    INTERRUPTED = "interrupted"
    FAILURES = "failures"  # the first candidates all failed alike


@dataclass
class Tally:
    """Counts of trials; parents, baselines and steps of descents are none.

    Attributes:
        mode: The campaign's; only in `mean` there is a best value.
        asked: Candidates asked for.
        failed: Candidates that failed.
        items: Items scored for trials, an item of a gradient counting as three.
        best_value: The best value that meets the constraints; None before there is one, and in other modes.
        repeats: How many of the latest trials in a row repeated the recipe of an earlier one.
        scored: Number → trial scored in full.
        given_up: Number → trial given up before its last item, with estimates for values.
        gradient_failure: Why the last step that failed did; None: none failed.
    """

    mode: str = "mean"
    asked: int = 0
    failed: int = 0
    items: int = 0
    best_value: float | None = None
    repeats: int = 0
    scored: dict[int, Ranked] = field(default_factory=dict)
    given_up: dict[int, Ranked] = field(default_factory=dict)
    gradient_failure: str | None = None

    @property
    def pruned(self) -> int:
        """Candidates given up before their last item."""
        return len(self.given_up)

    @property
    def told(self) -> int:
        """Candidates with an outcome, failures included."""
        return len(self.scored) + self.failed + self.pruned

    def take(self, number: int, outcome: Outcome, result: Measurement | None) -> None:
        """Count a trial's outcome; None as its result: it failed."""
        self.items += outcome.cost.items
        if result is None:
            self.failed += 1
        elif outcome.pruned is not None:
            self.given_up[number] = Ranked(number, result.values, result.violations)
        else:
            self.scored[number] = Ranked(number, result.values, result.violations)
            if self.mode == "mean" and feasible(result.violations):
                before = self.best_value
                self.best_value = max(
                    result.values[0], before if before is not None else -float("inf")
                )

    def ended(self, campaign: Campaign, pending: int) -> Ended | None:
        """Return what ends the search; None: it goes on.

        Args:
            campaign: Its budget.
            pending: Items that running work may still cost.
        """
        target, best = campaign.search.target, self.best_value
        if target is not None and best is not None and best >= target:
            return Ended.TARGET
        if campaign.search.trials is not None and self.asked >= campaign.search.trials:
            return Ended.TRIALS
        if not self.affords(campaign, pending + campaign.items_per_trial):
            return Ended.ITEMS
        return Ended.EXHAUSTED if self.repeats >= EXHAUSTED else None

    def affords(self, campaign: Campaign, items: int) -> bool:
        """Tell whether the budget of item evaluations covers so many more."""
        budget = campaign.search.item_evaluations
        return budget is None or self.items + items <= budget
