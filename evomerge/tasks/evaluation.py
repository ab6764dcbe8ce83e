"""Responses → metrics, by lm-eval's own filters, `process_results` and aggregation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
from lm_eval.api.group import Group
from lm_eval.api.metrics import acc_all, mean, stderr_for_metric
from lm_eval.api.task import Task

from evomerge.candidate.trial import Estimate
from evomerge.errors import TaskError
from evomerge.tasks.rendering import Leaf
from evomerge.tasks.task_faults import described
from evomerge.tasks.tasks import TASK_FAULTS, name_of, quiet

Named = tuple[str, str]
"""lm-eval's (metric, filter)."""

_CLOSED_FORM = (mean, acc_all)


def item_values(
    leaf: Leaf,
    responses: Sequence[Sequence[Any]],
    wanted: Sequence[Named] | None,
    *,
    repeated: bool = False,
) -> dict[Named, list[Any]]:
    """Compute metrics per item.

    Args:
        leaf: The documents and their requests.
        responses: One response for each request of each document.
        wanted: Metrics and filters; None: all that the task gives, by every filter.
        repeated: Whether each response is a list, one for each of the task's `repeats`; otherwise
            the one response stands for all, as greedy decoding gives the same each time.

    Returns:
        (metric, filter) → one value an item, as lm-eval hands it to its aggregation; None where
        `process_results` leaves the metric out.

    Raises:
        TaskError: The task's filters or `process_results` fail.
    """
    try:
        with quiet():  # of every document with a gold answer that is none of its choices
            return _item_values(leaf, responses, wanted, repeated)
    except TASK_FAULTS as error:
        raise _broken(leaf.task, error) from None


def aggregate(
    task: Task, metric: str, values: Sequence[Any], bootstrap_iterations: int = 0
) -> Estimate:
    """Aggregate per-item values as lm-eval does.

    Args:
        task: The task.
        metric: The metric's name.
        values: One an item; None is left out.
        bootstrap_iterations: Draws for the standard error of a metric that has no closed form
            (`simple_evaluate` takes 100,000, which costs seconds); 0: it has none.

    Raises:
        TaskError: The aggregation fails, or there is no value.
    """
    function = task.aggregation().get(metric, mean)
    present = [value for value in values if value is not None]
    if not present:
        raise TaskError(
            f'task "{name_of(task)}" gives no "{metric}" for any document; correct its process_results '
            "or metric_list, or take another metric"
        )
    try:
        value = float(function(present))
        return Estimate(value, _stderr(function, present, metric, bootstrap_iterations))
    except TASK_FAULTS as error:
        raise _broken(task, error) from None


def task_row(estimates: Mapping[Named, Estimate], sample_len: int) -> dict[str, Any]:
    """Return estimates in the form of lm-eval's row of a task, `METRIC,FILTER` and `METRIC_stderr,FILTER`.

    Args:
        estimates: (metric, filter) → estimate.
        sample_len: Number of items, by which a group weights its tasks.
    """
    row: dict[str, Any] = {"sample_len": sample_len}
    for (metric, filter_name), estimate in estimates.items():
        row[f"{metric},{filter_name}"] = estimate.value
        row[f"{metric}_stderr,{filter_name}"] = (
            "N/A" if estimate.stderr is None else estimate.stderr
        )
    return row


def aggregate_group(group: Group, rows: Mapping[str, Mapping[str, Any]], name: Named) -> Estimate:
    """Aggregate a group's metric over those of its tasks that have it, by lm-eval's `Group.aggregate`.

    Args:
        group: The group.
        rows: Task → its `task_row`.
        name: The wanted metric and filter.

    Raises:
        TaskError: None of its tasks gives the metric.
    """
    with quiet():  # of tasks without the metric
        row: Mapping[str, Any] = group.aggregate(dict(rows))
    metric = f"{name[0]},{name[1]}"
    if metric not in row:
        raise TaskError(f'no task of group "{group.name}" gives "{metric}"')
    stderr = row.get(f"{name[0]}_stderr,{name[1]}")
    return Estimate(float(row[metric]), float(stderr) if isinstance(stderr, float) else None)


def mean_estimate(values: Sequence[float | None]) -> Estimate | None:
    """Return the mean with the standard error that lm-eval gives a mean; None where there is no value.

    Args:
        values: One an item; None is left out.
    """
    present = [value for value in values if value is not None]
    return Estimate(float(mean(present)), _stderr(mean, present, "", 0)) if present else None


def plain(value: Any) -> Any:  # noqa: ANN401 - what lm-eval hands to its aggregation is any
    """Turn numpy's numbers and arrays into Python's, so that a value can be stored."""
    if isinstance(value, np.ndarray):
        return [plain(each) for each in value.tolist()]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return type(value)(plain(each) for each in value)
    return value


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
    leaf: Leaf, responses: Sequence[Sequence[Any]], wanted: Sequence[Named] | None, repeated: bool
) -> dict[Named, list[Any]]:
    instances = [request for requests in leaf.requests for request in requests]
    for request, response in zip(
        instances, (each for item in responses for each in item), strict=True
    ):
        request.resps = list(response) if repeated else [response] * (request.repeats or 1)
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
