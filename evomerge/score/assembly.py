"""Metrics by the names that were asked for, and a group's scores from those of its tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval.api.group import Group

from evomerge.score.evaluation import Named, aggregate, aggregate_group, mean_estimate, plain
from evomerge.score.items import Items
from evomerge.score.metrics import is_gold, resolve
from evomerge.score.rendering import Leaf
from evomerge.trial import Estimate, Split, TaskScores

Asked = tuple[Mapping[str, Named], tuple[str, ...]]
"""lm-eval's metrics, by asked name, and ours on the gold answer."""


def asked_metrics(items: Items, task: str, names: Sequence[str]) -> Asked:
    """Sort a task's metrics into lm-eval's and ours.

    Raises:
        TaskError: No such task among the items, or the task has no such metric.
    """
    for name in names:
        items.check_metric(task, name)
    loaded = items.loaded(task)
    golds = tuple(name for name in names if is_gold(name))
    return {name: resolve(task, loaded, name) for name in names if not is_gold(name)}, golds


@dataclass(frozen=True)
class LeafValues:
    """One leaf's metrics before their aggregation.

    Attributes:
        positions: Which of the leaf's documents.
        metrics: Metric → one value for each of them.
        truncated: How many were cut to the model's context.
    """

    positions: Sequence[int]
    metrics: Mapping[str, Sequence[Any]]
    truncated: int


def union(parts: Sequence[LeafValues]) -> LeafValues:
    """Put parts of one leaf together, in the order of its documents."""
    if len(parts) == 1:
        return parts[0]
    positions = [position for part in parts for position in part.positions]
    order = sorted(range(len(positions)), key=positions.__getitem__)
    metrics = {}
    for name in parts[0].metrics:
        values = [value for part in parts for value in part.metrics[name]]
        metrics[name] = [values[index] for index in order]
    truncated = sum(part.truncated for part in parts)
    return LeafValues([positions[index] for index in order], metrics, truncated)


def leaf_scores(leaf: Leaf, values: LeafValues, asked: Asked, iterations: int = 0) -> TaskScores:
    """Aggregate one leaf's metrics as lm-eval does.

    Args:
        leaf: All its documents.
        values: Of those that were scored.
        asked: The metrics.
        iterations: Draws for standard errors without a closed form; 0: they have none.

    Raises:
        TaskError: The aggregation fails.
    """
    estimates: dict[str, Estimate] = {}
    for name, pair in asked[0].items():
        estimates[name] = aggregate(leaf.task, pair[0], values.metrics[name], iterations)
    for name in asked[1]:
        estimates[name] = mean_estimate(values.metrics[name])
    ids = tuple(leaf.ids[position] for position in values.positions)
    metrics = {name: tuple(map(plain, each)) for name, each in values.metrics.items()}
    return TaskScores(ids, metrics, estimates, values.truncated)


def assemble(
    items: Items, split: Split, asked: Mapping[str, Asked], scored: Sequence[TaskScores | None]
) -> tuple[dict[str, TaskScores], dict[str, TaskScores]]:
    """Put the scores of all leaves together.

    Args:
        items: What was scored.
        split: Which items.
        asked: Requested task or group → its metrics.
        scored: One for each leaf of each of them, in order; None where no document is scored yet.

    Returns:
        The scores of requested tasks and groups, and those of the groups' tasks; without those of which
        no document is scored yet.
    """
    tasks: dict[str, TaskScores] = {}
    subtasks: dict[str, TaskScores] = {}
    rest = iter(scored)
    for task, metrics in asked.items():
        leaves = items.leaves(task, split)
        found = [(leaf.name, next(rest)) for leaf in leaves]
        own = {name: each for name, each in found if each is not None}
        if not own:
            continue
        loaded = items.loaded(task)
        if isinstance(loaded, Group):
            subtasks |= own
            tasks[task] = _of_group(loaded, own, *metrics)
        else:
            (tasks[task],) = own.values()
    return tasks, subtasks


def _of_group(
    group: Group, scored: Mapping[str, TaskScores], names: Mapping[str, Named], golds: Sequence[str]
) -> TaskScores:
    leaves = scored.values()
    metrics = {
        name: tuple(value for each in leaves for value in each.metrics[name])
        for name in (*names, *golds)
    }
    sizes = {leaf: len(each.items) for leaf, each in scored.items()}
    estimates = {
        leaf: {pair: each.values[name] for name, pair in names.items()}
        for leaf, each in scored.items()
    }
    values = {name: aggregate_group(group, estimates, sizes, pair) for name, pair in names.items()}
    values |= {name: mean_estimate(metrics[name]) for name in golds}
    ids = tuple(identifier for each in leaves for identifier in each.items)
    return TaskScores(ids, metrics, values, sum(each.truncated for each in leaves))
