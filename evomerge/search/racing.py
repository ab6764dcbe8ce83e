"""Which races a campaign runs: its items in order, and the incumbents that a candidate has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from evomerge.campaign import Campaign, Objective
from evomerge.goals import Better, Judge, is_proportional
from evomerge.racing import block_order, disagreement
from evomerge.trial import Outcome, Race

BLOCKS = 8
ALPHA = 0.1


class _Metrics(Protocol):
    def race_fault(self, task: str, metric: str) -> str | None: ...


def race_of(judge: Judge, ids: Mapping[str, Sequence[str]]) -> Race:
    """Lay out a campaign's races: the order of the items, the weights; no rivals yet.

    It depends on nothing but the arguments, so that a resumed campaign lays out the same.

    Args:
        judge: Of the `search` items; its yardsticks tell on which items models disagree.
        ids: Task → ids of its search items.
    """
    goals = judge.campaign.objectives
    metrics = {goal.task: goal.metric for goal in goals}
    signs = {goal.task: 1 if judge.better(goal.task, goal.metric) else -1 for goal in goals}
    weights = {goal.task: _weight(judge, goal) for goal in goals}
    yardsticks = judge.yardsticks
    known = [*yardsticks.experts.values(), *yardsticks.baselines.values()]
    if yardsticks.base is not None:
        known.insert(0, yardsticks.base)
    spread = disagreement(known, metrics, signs, {goal.task: ids[goal.task] for goal in goals})
    shares = {goal.task: goal.weight for goal in goals}
    pareto = judge.campaign.mode == "pareto"
    if pareto:
        shares = dict.fromkeys(shares, 1.0)
    blocks = block_order(spread, shares, BLOCKS)
    return Race(blocks, metrics, weights, signs, spread, (), pareto, ALPHA)


def against(race: Race, incumbents: Sequence[Outcome]) -> Race | None:
    """Name the rivals.

    Args:
        race: From `race_of`.
        incumbents: The best so far, which keeps the conditions; or in Pareto mode the front. Those that
            failed or were pruned are no rivals.

    Returns:
        None without rivals: then a candidate is scored in full.
    """
    rivals = tuple(
        {task: tuple(outcome.scores[task].metrics[metric]) for task, metric in race.metrics.items()}
        for outcome in incumbents
        if outcome.failure is None and outcome.pruned is None
    )
    return replace(race, rivals=rivals) if rivals else None


def race_faults(campaign: Campaign, items: _Metrics, better: Better) -> list[str]:
    """Say why a campaign cannot race its candidates.

    Args:
        campaign: Its objectives, costs and scorer.
        items: What is scored (`score.Items`).
        better: Direction of each task's metric.

    Returns:
        One line a reason; empty: it can.
    """
    goals = campaign.objectives
    faults = [items.race_fault(goal.task, goal.metric) for goal in goals]
    found = [fault for fault in faults if fault is not None]
    if campaign.normalize == "best_expert":
        found += [
            f'{goal.metric} of task "{goal.task}" as a share of the best expert\'s is no mean over items'
            for goal in goals
            if not is_proportional(goal.metric, higher=better(goal.task, goal.metric))
        ]
    if campaign.costs:
        found.append("a candidate that is worse on the tasks may still win by its costs")
    if campaign.scorer.backend != "resident":
        found.append(f"the backend {campaign.scorer.backend} scores all items in one go")
    return found


def _weight(judge: Judge, goal: Objective) -> float:
    """A task's weight in the mean of values as they are."""
    if judge.campaign.mode == "pareto" or judge.campaign.normalize == "none":
        return goal.weight
    higher = judge.better(goal.task, goal.metric)
    best = judge.yardsticks.best_value("best_expert", goal.task, goal.metric, higher=higher)
    return goal.weight if best is None or best <= 0 else goal.weight / best
