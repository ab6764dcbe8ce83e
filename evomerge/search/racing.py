"""Which races a campaign runs: what its items can be worth, and the incumbents to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from evomerge.candidate.trial import Outcome, Race
from evomerge.config import Campaign, Objective
from evomerge.objective import Better, Objectives, best_value, is_proportional
from evomerge.racing import expectation

BLOCKS = 8
ALPHA = 0.1


class _Metrics(Protocol):
    def race_fault(self, task: str, metric: str) -> str | None: ...


def race_of(aims: Objectives, ids: Mapping[str, Sequence[str]]) -> Race | None:
    """Lay out a campaign's races: weights, bounds, and what a good model is expected to have; no rivals yet.

    It depends on nothing but the arguments, so that a resumed campaign lays out the same.

    Args:
        aims: Of the `search` items; its parents and baselines tell what is expected.
        ids: Task → ids of its search items.

    Returns:
        None where nothing bounds what a candidate can still gain: see `unbounded`.
    """
    if unbounded(aims) is not None:
        return None
    goals = aims.campaign.objectives
    metrics = {goal.task: goal.metric for goal in goals}
    signs = {goal.task: 1 if aims.better(goal.task, goal.metric) else -1 for goal in goals}
    known = _known(aims)
    expected, spread = expectation(
        known, metrics, signs, {goal.task: ids[goal.task] for goal in goals}
    )
    return Race(
        metrics=metrics,
        weights={goal.task: aims.weight(goal) for goal in goals},
        signs=signs,
        best={goal.task: _best(aims, goal) or 0.0 for goal in goals},
        expected=expected,
        spread=spread,
        blocks=BLOCKS,
        seed=aims.campaign.search.seed,
        pareto=aims.campaign.mode == "pareto",
        alpha=ALPHA,
    )


def unbounded(aims: Objectives) -> str | None:
    """Say why candidates cannot be given up before all items are scored, as parents and baselines show.

    A candidate that is behind may make up for it by the items that are left, unless there is a best
    value that an item can have; see `goals.best_value`.

    Args:
        aims: Of the `search` items.

    Returns:
        One line; None: they can.
    """
    for goal in aims.campaign.objectives:
        if _best(aims, goal) is None:
            values = _values(aims, goal)
            return (
                f'{goal.metric} of task "{goal.task}" has values from {min(values):g} to '
                f"{max(values):g}, and nothing says what the best one is that an item can have"
            )
    return None


def against(race: Race | None, incumbents: Sequence[Outcome], number: int) -> Race | None:
    """Name the rivals of a trial.

    Args:
        race: From `race_of`; None: nothing is raced.
        incumbents: The best so far, which keeps the constraints; or in Pareto mode the front. Those that
            failed or were pruned are not compared with.
        number: The trial's: draws the order of its items.

    Returns:
        None without rivals: then a candidate is scored in full.
    """
    if race is None:
        return None
    rivals = tuple(
        {task: tuple(outcome.scores[task].metrics[metric]) for task, metric in race.metrics.items()}
        for outcome in incumbents
        if outcome.failure is None and outcome.pruned is None
    )
    return replace(race, rivals=rivals, number=number) if rivals else None


def race_faults(campaign: Campaign, items: _Metrics, better: Better) -> list[str]:
    """Say why a campaign cannot race its candidates.

    Args:
        campaign: Its objectives, costs and scorer.
        items: What is scored (`score.Items`).
        better: Direction of each task's metric.

    Returns:
        One line a reason; empty: it can.
    """
    from evomerge.scoring import backend_type

    goals = campaign.objectives
    faults = [items.race_fault(goal.task, goal.metric) for goal in goals]
    found = [fault for fault in faults if fault is not None]
    if campaign.normalize == "best_expert":
        found += [
            f'{goal.metric} of task "{goal.task}" as a share of the best expert\'s is not a mean over items'
            for goal in goals
            if not is_proportional(goal.metric, higher=better(goal.task, goal.metric))
        ]
    if campaign.costs:
        found.append("a candidate that is worse on the tasks may still win by its costs")
    if not backend_type(campaign.scorer.backend).races:
        found.append(f"the backend {campaign.scorer.backend} scores all items in one go")
    if campaign.scorer.at_once > 1:
        found.append("candidates that are evaluated together (max_loras) are written for at once")
    return found


def _known(aims: Objectives) -> list[Outcome]:
    references = aims.references
    known = [*references.experts.values(), *references.baselines.values()]
    return known if references.base is None else [references.base, *known]


def _best(aims: Objectives, goal: Objective) -> float | None:
    higher = aims.better(goal.task, goal.metric)
    return best_value(goal.metric, _values(aims, goal), higher=higher)


def _values(aims: Objectives, goal: Objective) -> list[float]:
    return [
        value
        for outcome in _known(aims)
        if outcome.failure is None and outcome.pruned is None
        for value in outcome.scores[goal.task].metrics[goal.metric]
    ]
