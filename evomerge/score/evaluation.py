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

from evomerge.errors import TaskError
from evomerge.score.rendering import Leaf
from evomerge.score.tasks import TASK_FAULTS, name_of
from evomerge.trial import Estimate

Named = tuple[str, str]
"""lm-eval's (metric, filter)."""

_CLOSED_FORM = (mean, acc_all)


def item_values(
    leaf: Leaf,
    responses: Sequence[Sequence[Any]],
    wanted: Sequence[Named],
    *,
    repeated: bool = False,
) -> dict[Named, list[Any]]:
    """Compute metrics per item.

    Args:
        leaf: The documents and their requests.
        responses: One response for each request of each document.
        wanted: Metrics and filters.
        repeated: Whether each response is a list, one for each of the task's `repeats`; otherwise
            the one response stands for all, as greedy decoding gives the same each time.

    Returns:
        (metric, filter) → one value an item, as lm-eval hands it to its aggregation; None where
        `process_results` leaves the metric out.

    Raises:
        TaskError: The task's filters or `process_results` fail.
    """
    try:
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
        TaskError: The aggregation fails.
    """
    function = task.aggregation().get(metric, mean)
    present = [value for value in values if value is not None]
    try:
        value = float(function(present))
        return Estimate(value, _stderr(function, present, metric, bootstrap_iterations))
    except TASK_FAULTS as error:
        raise _broken(task, error) from None


def aggregate_group(
    group: Group,
    estimates: Mapping[str, Mapping[Named, Estimate]],
    sizes: Mapping[str, int],
    name: Named,
) -> Estimate:
    """Aggregate a group's metric over its tasks, by lm-eval's `Group.aggregate`.

    Args:
        group: The group.
        estimates: Task → (metric, filter) → estimate.
        sizes: Task → number of items.
        name: The wanted metric and filter.
    """
    tables: dict[str, Any] = {}
    for task, each in estimates.items():
        tables[task] = {"sample_len": sizes[task]}
        for (metric, filter_name), estimate in each.items():
            tables[task][f"{metric},{filter_name}"] = estimate.value
            shown = "N/A" if estimate.stderr is None else estimate.stderr
            tables[task][f"{metric}_stderr,{filter_name}"] = shown
    row: Mapping[str, Any] = group.aggregate(tables)
    stderr = row.get(f"{name[0]}_stderr,{name[1]}")
    return Estimate(
        float(row[f"{name[0]},{name[1]}"]), float(stderr) if isinstance(stderr, float) else None
    )


def mean_estimate(values: Sequence[float]) -> Estimate:
    """Return the mean with the standard error that lm-eval gives a mean."""
    return Estimate(float(mean(values)), _stderr(mean, values, "", 0))


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
    leaf: Leaf, responses: Sequence[Sequence[Any]], wanted: Sequence[Named], repeated: bool
) -> dict[Named, list[Any]]:
    instances = [request for requests in leaf.requests for request in requests]
    for request, response in zip(
        instances, (each for item in responses for each in item), strict=True
    ):
        request.resps = list(response) if repeated else [response] * (request.repeats or 1)
        request.filtered_resps = {}
    filters = {name for _, name in wanted}
    for ensemble in leaf.task._filters:
        if ensemble.name in filters:
            ensemble.apply(instances)
    values: dict[Named, list[Any]] = {name: [] for name in wanted}
    for filter_name in filters:
        metrics = [metric for metric, name in wanted if name == filter_name]
        for doc, requests in zip(leaf.docs, leaf.requests, strict=True):
            filtered = [request.filtered_resps[filter_name] for request in requests]
            result = leaf.task.process_results(doc, filtered)
            for metric in metrics:
                values[metric, filter_name].append(result.get(metric, None))
    return values


def _broken(task: Task, error: Exception) -> TaskError:
    return TaskError(
        f'task "{name_of(task)}" cannot be scored: {type(error).__name__}: {error}; '
        "correct its filters, process_results or metric_list"
    )
