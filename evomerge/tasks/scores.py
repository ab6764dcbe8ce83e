"""Responses → per-item values → scores, by lm-eval's own filters, `process_results` and aggregation."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
from lm_eval.api.group import Group
from lm_eval.api.metrics import acc_all, mean, stderr_for_metric
from lm_eval.api.task import Task

from evomerge.candidate.trial import Estimate, Split, TaskScores
from evomerge.errors import TaskError
from evomerge.tasks.items import Items
from evomerge.tasks.metrics import (
    Named,
    filter_names,
    gold_metrics,
    group_metrics,
    is_gold,
    named,
    pair_of,
    resolve,
)
from evomerge.tasks.rendering import Leaf
from evomerge.tasks.task_faults import described
from evomerge.tasks.tasks import TASK_FAULTS, name_of, quiet

_CLOSED_FORM = (mean, acc_all)


@dataclass(frozen=True)
class Asked:
    """The metrics that are asked of a task; None: all that it gives."""

    named: Mapping[str, Named] | None  # asked name → lm-eval's (metric, filter)
    golds: tuple[str, ...] | None  # ours on the gold answer

    @classmethod
    def of(cls, items: Items, task: str, split: Split, names: Sequence[str] | None) -> Asked:
        """Sort a task's metrics into lm-eval's and ours.

        Raises:
            TaskError: No such task among the items, the task has no such metric, or the metric needs a
                gold answer that an item of the split does not have.
        """
        if names is None:
            return cls(None, None)
        for name in names:
            items.check_metric(task, name, [split])
        theirs = {
            name: resolve(task, items.loaded(task), name) for name in names if not is_gold(name)
        }
        return cls(theirs, tuple(name for name in names if is_gold(name)))

    def golds_of(self, leaf: Leaf) -> tuple[str, ...]:
        """Return the metrics on the gold answer that a leaf is asked for."""
        return gold_metrics(leaf.task) if self.golds is None else self.golds


class LeafValues:
    """The values of one leaf's documents, added block by block."""

    def __init__(self, leaf: Leaf, asked: Asked) -> None:
        self.leaf, self._asked = leaf, asked
        self.golds = asked.golds_of(leaf)
        self.requests = asked.named is None or bool(asked.named)
        self._values: dict[str, dict[int, Any]] = {}
        self._answers: dict[int, str] = {}
        self._scored: list[int] = []
        self._truncated = 0

    def add(
        self,
        positions: Sequence[int],
        responses: Sequence[Sequence[Sequence[Any]]],
        golds: Mapping[str, Sequence[float | None]],
        truncated: int = 0,
    ) -> None:
        """Add documents.

        Args:
            positions: Which of the leaf's, ascending.
            responses: By document and request one response for each repeat, or one that stands for all;
                unused unless `requests`.
            golds: Metric of `golds` → one value for each of them; None where it has no answer.
            truncated: How many of them were cut to the model's context.

        Raises:
            TaskError: The task's filters or `process_results` fail, or a metric that is asked for by name
                has no value.
        """
        found: dict[str, Sequence[Any]] = {}
        leaf, theirs = self.leaf.excerpt(positions), self._asked.named
        if theirs is None:
            filters = filter_names(leaf.task)
            computed = item_values(leaf, responses, None)
            found |= {named(pair, filters): each for pair, each in computed.items()}
        elif theirs:
            computed = item_values(leaf, responses, list(theirs.values()))
            found |= {name: computed[pair] for name, pair in theirs.items()}
        for name, values in (found | dict(golds)).items():
            if theirs is not None and is_gold(name) and None in values:
                raise TaskError(
                    f'task "{leaf.name}": {name} was asked for, but a gold answer adds no '
                    "tokens to its prompt; there is nothing to score"
                )
            self._values.setdefault(name, {}).update(zip(positions, values, strict=True))
        if self.requests:
            self._answers |= zip(positions, leaf.answers(responses), strict=True)
        self._scored = sorted([*self._scored, *positions])
        self._truncated += truncated

    def take(
        self,
        positions: Sequence[int],
        values: Mapping[str, Sequence[Any]],
        answers: Sequence[str] = (),
    ) -> None:
        """Add documents that are known: metric → one value for each of `positions`, and the answers."""
        for name, each in values.items():
            self._values.setdefault(name, {}).update(zip(positions, each, strict=True))
        self._answers |= zip(positions, answers, strict=False)
        self._scored = sorted([*self._scored, *positions])

    def scores(self, bootstrap_iterations: int = 0) -> TaskScores | None:
        """Aggregate as lm-eval does, without metrics that no document has; None: no document is scored.

        Raises:
            TaskError: The aggregation fails.
        """
        if not self._scored:
            return None
        metrics: dict[str, tuple[Any, ...]] = {}
        estimates: dict[str, Estimate] = {}
        for name, known in self._values.items():
            values = [known.get(position) for position in self._scored]
            if all(value is None for value in values):
                continue
            metric = name.partition(",")[0]
            estimates[name] = (
                mean_estimate(values)
                if is_gold(name)
                else aggregate(self.leaf.task, metric, values, bootstrap_iterations)
            )
            metrics[name] = tuple(map(plain, values))
        ids = tuple(self.leaf.ids[position] for position in self._scored)
        answers = tuple(self._answers.get(position, "") for position in self._scored)
        return TaskScores(ids, metrics, estimates, self._truncated, answers if any(answers) else ())


def item_values(
    leaf: Leaf, responses: Sequence[Sequence[Sequence[Any]]], wanted: Sequence[Named] | None
) -> dict[Named, list[Any]]:
    """Compute metrics per item.

    Args:
        leaf: The documents and their requests.
        responses: By document and request one response for each of the task's `repeats`, or one for all.
        wanted: Metrics and filters; None: all that the task gives, by every filter.

    Returns:
        (metric, filter) → one value an item, as lm-eval hands it to its aggregation; None where
        `process_results` leaves the metric out.

    Raises:
        TaskError: The task's filters or `process_results` fail.
    """
    try:
        with quiet():  # of every document with a gold answer that is none of its choices
            return _item_values(leaf, responses, wanted)
    except TASK_FAULTS as error:
        raise _broken(leaf.task, error) from None


def aggregate(
    task: Task, metric: str, values: Sequence[Any], bootstrap_iterations: int = 0
) -> Estimate:
    """Aggregate per-item values (None is left out, not all are None) as lm-eval does.

    A metric without a closed form has a standard error where `bootstrap_iterations` draws are asked for
    (`simple_evaluate` takes 100,000, which costs seconds).

    Raises:
        TaskError: The aggregation fails.
    """
    function = task.aggregation().get(metric, mean)
    present = [value for value in values if value is not None]
    try:
        value = float(function(present))
        return Estimate(value, _stderr(function, present, metric, bootstrap_iterations))
    except TASK_FAULTS as error:
        raise _broken(task, error) from None


def assemble(
    items: Items,
    asked: Mapping[str, Asked],
    values: Mapping[str, Sequence[LeafValues]],
    bootstrap_iterations: int = 0,
) -> tuple[dict[str, TaskScores], dict[str, TaskScores]]:
    """Put the scores of all leaves together; arguments by requested task or group.

    Returns:
        The scores of requested tasks and groups, and those of the groups' tasks; without those of which
        no document is scored yet.

    Raises:
        TaskError: A task gives none of the values of a metric that was asked for by name.
    """
    tasks: dict[str, TaskScores] = {}
    subtasks: dict[str, TaskScores] = {}
    for task, parts in values.items():
        found = [(each.leaf, each.scores(bootstrap_iterations)) for each in parts]
        own = [(leaf, scores) for leaf, scores in found if scores is not None]
        loaded = items.loaded(task)
        if isinstance(loaded, Group) and own:
            subtasks |= {leaf.name: scores for leaf, scores in own}
            tasks[task] = _of_group(loaded, own, asked[task])
        elif own:
            ((_, tasks[task]),) = own
            for name in asked[task].named or ():
                if name not in tasks[task].values:
                    raise TaskError(
                        f'task "{task}" gives no "{name}" for any document; correct its '
                        "process_results or metric_list, or take another metric"
                    )
    return tasks, subtasks


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
    return {"sample_len": sample_len(scores), **row_entries(estimates)}


def row_entries(estimates: Mapping[Named, Estimate]) -> dict[str, Any]:
    """Return estimates as lm-eval's rows have them, `METRIC,FILTER` and `METRIC_stderr,FILTER`."""
    row: dict[str, Any] = {}
    for (metric, filter_name), estimate in estimates.items():
        row[f"{metric},{filter_name}"] = estimate.value
        stderr = estimate.stderr
        row[f"{metric}_stderr,{filter_name}"] = "N/A" if stderr is None else stderr
    return row


def group_golds(leaves: Iterable[TaskScores]) -> dict[str, Estimate]:
    """Return our metrics of a group: means over all its items, where all its tasks have the metric."""
    scores = list(leaves)
    return {
        name: mean_estimate([value for each in scores for value in each.metrics[name]])
        for name in (scores[0].values if scores else ())
        if is_gold(name) and all(name in each.values for each in scores)
    }


def mean_estimate(values: Sequence[float | None]) -> Estimate:
    """Return the mean, with lm-eval's standard error, of values that are not all None."""
    present = [value for value in values if value is not None]
    return Estimate(float(mean(present)), _stderr(mean, present, "", 0))


def plain(value: Any) -> Any:  # noqa: ANN401 - what lm-eval hands to its aggregation is any
    """Turn numpy's numbers and arrays into Python's, so that a value can be stored."""
    if isinstance(value, np.ndarray):
        return [plain(each) for each in value.tolist()]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return type(value)(plain(each) for each in value)
    return value


def _of_group(group: Group, own: Sequence[tuple[Leaf, TaskScores]], asked: Asked) -> TaskScores:
    rows = {leaf.name: row_of(leaf.task, each) for leaf, each in own}
    with quiet():  # of tasks without a metric
        row: Mapping[str, Any] = group.aggregate(dict(rows))
    pairs = asked.named
    if pairs is None:
        known = group_metrics(group)
        pairs = {name: pair for name, pair in known.items() if ",".join(pair) in row}
    estimates: dict[str, Estimate] = {}
    for name, (metric, filter_name) in pairs.items():
        if f"{metric},{filter_name}" not in row:
            raise TaskError(f'no task of group "{group.name}" gives "{metric},{filter_name}"')
        stderr = row.get(f"{metric}_stderr,{filter_name}")
        estimates[name] = Estimate(
            float(row[f"{metric},{filter_name}"]), stderr if isinstance(stderr, float) else None
        )
    golds = group_golds(each for _, each in own)
    wanted = tuple(golds) if asked.golds is None else asked.golds
    estimates |= {name: golds[name] for name in wanted}
    pairs = {**pairs, **{name: (name, "none") for name in wanted}}
    metrics = {
        name: tuple(value for leaf, each in own for value in _values(leaf, each, pairs[name]))
        for name in estimates
    }
    ids = tuple(identifier for _, each in own for identifier in each.items)
    answers = tuple(text for _, each in own for text in each.answers or ("",) * len(each.items))
    cut = sum(each.truncated for _, each in own)
    return TaskScores(ids, metrics, estimates, cut, answers if any(answers) else ())


def _values(leaf: Leaf, scores: TaskScores, pair: Named) -> tuple[Any, ...]:
    """Return a task's values of a group's metric; None for each item where the task has none."""
    for name, values in scores.metrics.items():
        if pair_of(leaf.task, name) == pair:
            return values
    return (None,) * len(scores.items)


def _stderr(function: Any, values: Sequence[Any], metric: str, iterations: int) -> float | None:  # noqa: ANN401
    closed = function in _CLOSED_FORM
    if len(values) < 2 or not (closed or iterations):
        return None
    draws = min(iterations, 100) if metric in ("bleu", "chrf", "chrf++", "ter") else iterations
    estimate = stderr_for_metric(metric=function, bootstrap_iters=1 if closed else draws)
    if estimate is None:
        return None
    with _in_this_process_and_quietly():
        return float(estimate(values))


@contextmanager
def _in_this_process_and_quietly() -> Iterator[None]:
    """lm-eval's bootstrap forks processes and prints; the draws are the same without."""
    before = os.environ.get("DISABLE_MULTIPROC")
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            yield
    finally:
        if before is None:
            del os.environ["DISABLE_MULTIPROC"]
        else:
            os.environ["DISABLE_MULTIPROC"] = before


def _item_values(
    leaf: Leaf, responses: Sequence[Sequence[Sequence[Any]]], wanted: Sequence[Named] | None
) -> dict[Named, list[Any]]:
    instances = [request for requests in leaf.requests for request in requests]
    answers = [repeats for of_document in responses for repeats in of_document]
    for request, repeats in zip(instances, answers, strict=True):
        one = len(repeats) == 1  # greedy decoding gives the same each time
        request.resps = list(repeats) * ((request.repeats or 1) if one else 1)
        request.filtered_resps = {}
    filters = None if wanted is None else {name for _, name in wanted}
    applied = [each for each in leaf.task._filters if filters is None or each.name in filters]
    for ensemble in applied:
        ensemble.apply(instances)
    empty: list[Any] = [None] * len(leaf.docs)
    values: dict[Named, list[Any]] = {name: list(empty) for name in wanted or ()}
    for filter_name in (each.name for each in applied):
        for index, (doc, requests) in enumerate(zip(leaf.docs, leaf.requests, strict=True)):
            filtered = [request.filtered_resps[filter_name] for request in requests]
            for metric, value in leaf.task.process_results(doc, filtered).items():
                if wanted is None or (metric, filter_name) in values:
                    values.setdefault((metric, filter_name), list(empty))[index] = value
    return values


def _broken(task: Task, error: Exception) -> TaskError:
    return TaskError(
        f'task "{name_of(task)}" cannot be scored: {described(error)}; '
        "correct its filters, process_results or metric_list"
    )
