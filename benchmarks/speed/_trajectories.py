"""Searches as trajectories: what was spent by the time each better candidate was known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import cmaes
import numpy as np

from benchmarks.speed._zoo_scorer import ZooScorer
from evomerge import candidate as recipe
from evomerge.candidate import Candidate, Recipe
from evomerge.candidate.trial import Outcome
from evomerge.space import Space
from evomerge.store import Store

GRADIENT = 3
"""Item evaluations of an item whose gradient is taken: a backward pass costs about two forward ones."""


@dataclass(frozen=True)
class Step:
    """A candidate that was scored.

    Attributes:
        items: Item evaluations spent by then, gradients among them.
        seconds: Since the search began; 0 where only items are counted.
        value: On the search items.
        recipe: Of the candidate.
    """

    items: int
    seconds: float
    value: float
    recipe: Candidate | Recipe


@dataclass(frozen=True)
class Reached:
    """When a trajectory's best candidate first held a score on `holdout`.

    Attributes:
        items: Item evaluations by then; None: never.
        seconds: By then.
    """

    items: int | None = None
    seconds: float | None = None


def incumbents(steps: Iterable[Step]) -> list[Step]:
    """Return the steps that were better than all before them on the search items."""
    best: list[Step] = []
    for step in steps:
        if not best or step.value > best[-1].value:
            best.append(step)
    return best


def reached(
    steps: Iterable[Step], goal: float, holdout: Callable[[Candidate | Recipe], float]
) -> Reached:
    """Find when the best candidate so far first scored `goal` on `holdout`.

    Args:
        steps: In order.
        goal: A score on `holdout`.
        holdout: Scores a recipe.
    """
    for step in incumbents(steps):
        if holdout(step.recipe) >= goal:
            return Reached(step.items, step.seconds)
    return Reached()


def with_mergekit_settings(
    scorer: ZooScorer, space: Space, evaluations: int, seed: int
) -> list[Step]:
    """Search as mergekit-evolve does, each candidate scored in full by our own engine.

    CMA-ES without bounds from x0 = 1/experts with σ = 1/6 and the default population; a weight is the
    absolute value of its coordinate (mergekit 0.1.4, `evo/genome.py`).

    Args:
        scorer: Scores the candidates.
        space: One that has weights only.
        evaluations: Budget.
        seed: Of CMA-ES, which mergekit-evolve leaves unset.
    """
    names = list(space.distributions)
    start = np.full(len(names), 1 / len(space.family.experts))
    population = 4 + math.floor(3 * math.log(len(names)))
    optimizer = cmaes.CMA(start, 1 / 6, population_size=population, seed=seed)
    items = scorer.items("search")
    steps: list[Step] = []
    while len(steps) < evaluations:
        told = []
        for _ in range(population):
            point = optimizer.ask()
            made = space.candidate(dict(zip(names, np.abs(point).tolist(), strict=True)))
            value = scorer.score(made, "search")
            steps.append(Step((len(steps) + 1) * items, 0.0, value, made))
            told.append((point, -value))
        optimizer.tell(told)
    return steps[:evaluations]


def of_campaign(folder: Path, seconds: Sequence[float], *, baselines: bool) -> list[Step]:
    """Read the trajectory of a finished campaign.

    Args:
        folder: Its results.
        seconds: When each trial was told, in that order.
        baselines: Count the items of parents and baselines too, which were scored before.
    """
    with Store.open(folder, write=False) as store:
        trials, gradients = store.trials(), store.gradient_steps()
        before = [one for one in store.evaluations() if one.split == "search"]
    told = sorted(
        (trial.told_seq, trial.outcome.cost.items, trial)
        for trial in trials
        if trial.told_seq is not None and trial.outcome is not None
    )
    gradient_items = {
        step.told_seq: GRADIENT * sum(map(len, step.items.values()))
        for step in gradients
        if step.told_seq is not None
    }
    items = sum(one.outcome.cost.items for one in before) if baselines else 0
    steps = []
    for (seq, cost, trial), at in zip(told, seconds, strict=False):
        items += cost
        gradients_by_then = sum(count for other, count in gradient_items.items() if other < seq)
        if trial.state == "complete" and trial.values:
            steps.append(Step(items + gradients_by_then, at, trial.values[0], trial.candidate))
    return steps


def best_of_campaign(folder: Path) -> tuple[Recipe, Candidate]:
    """Return the recipes of a finished campaign's winner, and of its best naive merge on `select`."""
    with Store.open(folder, write=False) as store:
        found = [one for one in store.evaluations() if one.split == "select"]
        naive = [one for one in found if one.kind == "baseline" and one.outcome.failure is None]
    best = max(naive, key=lambda one: _mean(one.outcome))
    return recipe.load(folder / "best" / "recipe.yaml"), best.candidate


def _mean(outcome: Outcome) -> float:
    """Return the mean over tasks of the one metric that was searched."""
    return fmean(next(iter(scores.values.values())).value for scores in outcome.scores.values())
