"""Metrics by the names that were asked for, and a group's scores from those of its tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval.api.group import Group
from lm_eval.api.task import Task

from evomerge.candidate.trial import Estimate, Split, TaskScores
from evomerge.errors import TaskError
from evomerge.tasks.evaluation import (
    Named,
    aggregate,
    aggregate_group,
    mean_estimate,
    plain,
    task_row,
)
from evomerge.tasks.items import Items
from evomerge.tasks.metrics import gold_metrics, group_metrics, is_gold, pair_of, resolve
from evomerge.tasks.rendering import Leaf


@dataclass(frozen=True)
class Asked:
    """What is asked of a task.

    Attributes:
        named: Asked name → lm-eval's (metric, filter); None: whatever the task gives, by every filter.
        golds: Ours on the gold answer.
    """

    named: Mapping[str, Named] | None
    golds: tuple[str, ...] = ()

    @property
    def requests(self) -> bool:
        """Whether any metric of lm-eval's is asked for."""
        return self.named is None or bool(self.named)


def asked_metrics(items: Items, task: str, split: Split, names: Sequence[str]) -> Asked:
    """Sort a task's metrics into lm-eval's and ours.

    Raises:
        TaskError: No such task among the items, the task has no such metric, or the metric needs a gold
            answer that an item of the split does not have.
    """
    for name in names:
        items.check_metric(task, name, [split])
    loaded = items.loaded(task)
    golds = tuple(name for name in names if is_gold(name))
    return Asked({name: resolve(task, loaded, name) for name in names if not is_gold(name)}, golds)


def everything(leaf: Leaf) -> Asked:
    """Return what asks for all that a task gives: lm-eval's metrics by all filters, and ours."""
    return Asked(None, gold_metrics(leaf.task))


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


def leaf_scores(leaf: Leaf, values: LeafValues, iterations: int = 0) -> TaskScores:
    """Aggregate one leaf's metrics as lm-eval does; without those that no document has.

    Args:
        leaf: All its documents.
        values: Of those that were scored.
        iterations: Draws for standard errors without a closed form; 0: they have none.

    Raises:
        TaskError: The aggregation fails.
    """
    estimates: dict[str, Estimate] = {}
    for name, each in values.metrics.items():
        if all(value is None for value in each):
            continue
        if is_gold(name):
            estimates[name] = _mean(each)
        else:
            estimates[name] = aggregate(leaf.task, name.partition(",")[0], each, iterations)
    ids = tuple(leaf.ids[position] for position in values.positions)
    metrics = {name: tuple(map(plain, values.metrics[name])) for name in estimates}
    return TaskScores(ids, metrics, estimates, values.truncated)


def sample_len(scores: TaskScores) -> int:
    """Return by how many documents lm-eval weights a task in its groups: the most that a metric has."""
    counts = [
        sum(value is not None for value in values)
        for name, values in scores.metrics.items()
        if not is_gold(name)
    ]
    return max(counts, default=len(scores.items))


def row_of(task: Task, scores: TaskScores) -> dict[str, Any]:
    """Return a task's scores as lm-eval's row; its name and alias are not in it."""
    estimates = {pair_of(task, name): estimate for name, estimate in scores.values.items()}
    return task_row(estimates, sample_len(scores))


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

    Raises:
        TaskError: A task gives none of the values of a metric that was asked for by name.
    """
    tasks: dict[str, TaskScores] = {}
    subtasks: dict[str, TaskScores] = {}
    rest = iter(scored)
    for task, metrics in asked.items():
        leaves = items.leaves(task, split)
        found = [(leaf, next(rest)) for leaf in leaves]
        own = [(leaf, each) for leaf, each in found if each is not None]
        if not own:
            continue
        loaded = items.loaded(task)
        if isinstance(loaded, Group):
            subtasks |= {leaf.name: each for leaf, each in own}
            tasks[task] = _of_group(loaded, own, metrics)
        else:
            ((_, tasks[task]),) = own
            _check_given(task, tasks[task], metrics)
    return tasks, subtasks


def group_golds(leaves: Iterable[TaskScores]) -> dict[str, Estimate]:
    """Return our metrics of a group: means over all its items, where all its tasks have the metric."""
    scores = list(leaves)
    return {
        name: _mean([value for each in scores for value in each.metrics[name]])
        for name in (scores[0].values if scores else ())
        if is_gold(name) and all(name in each.values for each in scores)
    }


def _mean(values: Sequence[float | None]) -> Estimate:
    found = mean_estimate(values)
    assert found is not None  # the callers see to it
    return found


def _check_given(task: str, scores: TaskScores, asked: Asked) -> None:
    for name in asked.named or ():
        if name not in scores.values:
            raise TaskError(
                f'task "{task}" gives no "{name}" for any document; correct its process_results or '
                "metric_list, or take another metric"
            )


def _of_group(group: Group, own: Sequence[tuple[Leaf, TaskScores]], asked: Asked) -> TaskScores:
    rows = {leaf.name: row_of(leaf.task, each) for leaf, each in own}
    named = asked.named
    if named is None:
        given = {metric for row in rows.values() for metric in row}
        named = {
            name: pair for name, pair in group_metrics(group).items() if ",".join(pair) in given
        }
    estimates = {name: aggregate_group(group, rows, pair) for name, pair in named.items()}
    golds = group_golds(each for _, each in own)
    estimates |= {name: golds[name] for name in (golds if asked.named is None else asked.golds)}
    pairs = dict(named) | {name: (name, "none") for name in golds}
    metrics = {
        name: tuple(value for leaf, each in own for value in _values(leaf, each, pairs[name]))
        for name in estimates
    }
    ids = tuple(identifier for _, each in own for identifier in each.items)
    return TaskScores(ids, metrics, estimates, sum(each.truncated for _, each in own))


def _values(leaf: Leaf, scores: TaskScores, pair: Named) -> tuple[Any, ...]:
    """Return a task's values of a group's metric; None for each item where the task has none."""
    for name, values in scores.metrics.items():
        if pair_of(leaf.task, name) == pair:
            return values
    return (None,) * len(scores.items)
