"""Names and directions of a task's metrics: lm-eval's own, and ours on the gold answer.

A metric is named `METRIC`, or `METRIC,FILTER` where the task has several filters. Ours:

- `gold_loglikelihood`: mean token log-likelihood of the gold answer;
- `gold_probability` (multiple choice): softmax over the choices' summed log-likelihoods, the gold's share;
- `gold_exact_match`: teacher-forced, every token of the gold answer is the most likely one.

Higher is better for all three.
"""

from __future__ import annotations

from collections.abc import Mapping

from lm_eval.api.group import Group
from lm_eval.api.metrics import mean
from lm_eval.api.task import Task

from evomerge.errors import TaskError, nearest
from evomerge.score.requested import TaskRequest
from evomerge.score.tasks import leaves, load_task

GOLD_LOGLIKELIHOOD = "gold_loglikelihood"
GOLD_PROBABILITY = "gold_probability"
GOLD_EXACT_MATCH = "gold_exact_match"
_GOLD_METRICS: Mapping[str, tuple[str, ...]] = {
    "multiple_choice": (GOLD_LOGLIKELIHOOD, GOLD_PROBABILITY, GOLD_EXACT_MATCH),
    "loglikelihood": (GOLD_LOGLIKELIHOOD, GOLD_EXACT_MATCH),
    "generate_until": (GOLD_LOGLIKELIHOOD, GOLD_EXACT_MATCH),
    "loglikelihood_rolling": (GOLD_LOGLIKELIHOOD,),
}


def task_metrics(
    task: str, *, tasks_path: str | None = None, allow_unsafe_code: bool = False
) -> dict[str, bool]:
    """Return every metric that a task or group offers → whether higher is better.

    Loads the task, its data included. Raises as `load_task` does.
    """
    return directions(
        load_task(TaskRequest(task), tasks_path=tasks_path, allow_unsafe_code=allow_unsafe_code)
    )


def directions(loaded: Task | Group) -> dict[str, bool]:
    """Return metric → whether higher is better, by the names that `resolve` takes."""
    own = _group_directions(loaded) if isinstance(loaded, Group) else _task_directions(loaded)
    return own | dict.fromkeys(_gold_metrics(loaded), True)


def is_gold(metric: str) -> bool:
    """Whether a metric is one of ours on the gold answer."""
    return metric in (GOLD_LOGLIKELIHOOD, GOLD_PROBABILITY, GOLD_EXACT_MATCH)


def resolve(name: str, loaded: Task | Group, metric: str) -> tuple[str, str]:
    """Return lm-eval's (metric, filter) for a metric's name; `METRIC,FILTER` is taken everywhere.

    Args:
        name: The task's name, for the message.
        loaded: The task or group.
        metric: As the user wrote it; none of ours.

    Raises:
        TaskError: The task has no such metric; the known ones are named.
    """
    known = directions(loaded)
    base, _, wanted = metric.partition(",")
    filters = filter_names(loaded)
    if wanted and len(filters) == 1 and base in known and wanted == filters[0]:
        return base, wanted
    _check(name, known, metric)
    return base, wanted or filters[0]


def is_item_mean(loaded: Task | Group, metric: str) -> bool:
    """Whether a metric is the plain mean of one number an item.

    Perplexity, F1 or BLEU over a whole corpus are not, nor is a group that counts each of its tasks
    alike whatever their sizes.

    Args:
        loaded: The task or group.
        metric: By a name that `resolve` takes, or one of ours.
    """
    if is_gold(metric):
        return True
    base = metric.partition(",")[0]
    if isinstance(loaded, Group) and not all(
        each.weight_by_size for each in loaded.aggregate_metric_list or () if each.metric == base
    ):
        return False
    return all(task.aggregation().get(base) is mean for task in leaves(loaded))


def filter_names(loaded: Task | Group) -> tuple[str, ...]:
    """Return the names of the filters of a task, or of all tasks of a group."""
    names = [each.name for task in leaves(loaded) for each in getattr(task, "_filters", ())]
    return tuple(dict.fromkeys(names)) or ("none",)


def _check(name: str, known: Mapping[str, bool], metric: str) -> None:
    """Raise TaskError, naming the known ones, unless `metric` is known."""
    if metric not in known:
        hint = nearest(metric, known)
        listed = f"known: {', '.join(sorted(known))}"
        text = listed if hint == listed else f"{hint} {listed}"
        raise TaskError(f'task "{name}" has no metric "{metric}"; {text}')


def _task_directions(task: Task) -> dict[str, bool]:
    higher = task.higher_is_better()
    return _named(
        [(metric, name) for metric in task.aggregation() for name in filter_names(task)],
        {metric: bool(higher.get(metric, True)) for metric in task.aggregation()},
        len(filter_names(task)),
    )


def _group_directions(group: Group) -> dict[str, bool]:
    higher: dict[str, bool] = {}
    for task in leaves(group):
        higher |= {metric: bool(better) for metric, better in task.higher_is_better().items()}
    filters = filter_names(group)
    pairs = []
    for aggregate in group.aggregate_metric_list or ():
        listed = aggregate.filter_list
        names = filters if listed is None else [listed] if isinstance(listed, str) else listed
        pairs += [(aggregate.metric, name) for name in names if name in filters]
    return _named(pairs, higher, len(filters))


def _named(
    pairs: list[tuple[str, str]], higher: Mapping[str, bool], filters: int
) -> dict[str, bool]:
    return {
        metric if filters == 1 else f"{metric},{name}": higher.get(metric, True)
        for metric, name in pairs
    }


def _gold_metrics(loaded: Task | Group) -> tuple[str, ...]:
    offered = [_GOLD_METRICS.get(str(task.OUTPUT_TYPE), ()) for task in leaves(loaded)]
    return tuple(metric for metric in offered[0] if all(metric in each for each in offered))
