"""Metrics by the names that were asked for, and a group's scores from those of its tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lm_eval.api.group import Group

from evomerge.score.evaluation import Named, aggregate_group, mean_estimate
from evomerge.score.items import Items
from evomerge.score.metrics import is_gold, resolve
from evomerge.score.rendering import Leaf
from evomerge.trial import Split, TaskScores

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


def assemble(
    items: Items, split: Split, asked: Mapping[str, Asked], scored: Sequence[TaskScores]
) -> tuple[dict[str, TaskScores], dict[str, TaskScores]]:
    """Put the scores of all leaves together.

    Args:
        items: What was scored.
        split: Which items.
        asked: Requested task or group → its metrics.
        scored: One for each leaf of each of them, in order.

    Returns:
        The scores of requested tasks and groups, and those of the groups' tasks.
    """
    tasks: dict[str, TaskScores] = {}
    subtasks: dict[str, TaskScores] = {}
    rest = iter(scored)
    for task, metrics in asked.items():
        leaves = items.leaves(task, split)
        own = [next(rest) for _ in leaves]
        loaded = items.loaded(task)
        if isinstance(loaded, Group):
            subtasks |= {leaf.name: each for leaf, each in zip(leaves, own, strict=True)}
            tasks[task] = _of_group(loaded, leaves, own, *metrics)
        else:
            tasks[task] = own[0]
    return tasks, subtasks


def _of_group(
    group: Group,
    leaves: Sequence[Leaf],
    scored: Sequence[TaskScores],
    names: Mapping[str, Named],
    golds: Sequence[str],
) -> TaskScores:
    metrics = {
        name: tuple(value for each in scored for value in each.metrics[name])
        for name in (*names, *golds)
    }
    sizes = {leaf.name: len(leaf.docs) for leaf in leaves}
    estimates = {
        leaf.name: {pair: each.values[name] for name, pair in names.items()}
        for leaf, each in zip(leaves, scored, strict=True)
    }
    values = {name: aggregate_group(group, estimates, sizes, pair) for name, pair in names.items()}
    values |= {name: mean_estimate(metrics[name]) for name in golds}
    ids = tuple(identifier for each in scored for identifier in each.items)
    return TaskScores(ids, metrics, values, sum(each.truncated for each in scored))
