"""What a search will ask for: trials scored in full, and items of gradients between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evomerge.config import Campaign
from evomerge.search.samplers.descent import CHECKPOINTS
from evomerge.search.samplers.gradient import paths_followed
from evomerge.search.tally import GRADIENT_COST

RACED = 0.6
"""Part of its items that a raced candidate is scored on, on average."""
FRONT = 4
"""Paths to a Pareto front, at least."""


@dataclass(frozen=True)
class Forecast:
    """Work of a search.

    Attributes:
        trials: Candidates.
        items: Items scored for them.
        steps: Gradients.
        step_items: Items that one of them reads.
    """

    trials: int
    items: float
    steps: int = 0
    step_items: int = 0


def forecast(campaign: Campaign, workers: int, golds: Mapping[str, int]) -> Forecast:
    """Count what the budgets of trials and item evaluations let a search ask for.

    Neither `hours` nor `target` is part of it: what they leave depends on the machine, and on the models.

    Args:
        campaign: The settings, its sampler chosen.
        workers: How many at once: so many paths are followed at least, up to a limit.
        golds: Task → number of its search items that have a gold answer.
    """
    search, per_trial = campaign.search, float(campaign.items_per_trial)
    budget = search.item_evaluations or float("inf")
    trials, left = campaign.planned_trials, float(budget)
    if search.trials is None and search.item_evaluations is not None:
        trials = 10**9  # as many as the items pay for
    if search.pruner != "none":
        per_trial *= RACED
    steps = done = 0
    step_items = sum(min(search.gradient_items, count) for count in golds.values())
    if search.sampler == "gradient":
        front = max(FRONT, len(campaign.objectives)) if campaign.mode == "pareto" else 1
        paths, methods = paths_followed(trials, workers, front), max(1, len(campaign.space.methods))
        # Each method has a descent before the others get a second one; a front has its paths in each.
        paths = paths * methods if front > 1 else paths + methods - 1
        for first in range(0, paths, workers):  # so many side by side
            for checkpoint, before in zip(CHECKPOINTS, (0, *CHECKPOINTS), strict=False):
                for _ in range(first, min(first + workers, paths)):
                    cost = GRADIENT_COST * (checkpoint - before) * step_items + per_trial
                    if done < trials and left >= cost:
                        steps, done, left = steps + checkpoint - before, done + 1, left - cost
    if left < float("inf"):
        trials = min(trials, done + int(left // per_trial))
    return Forecast(trials, trials * per_trial, steps, step_items if steps else 0)
