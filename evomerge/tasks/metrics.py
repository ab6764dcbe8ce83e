"""Names and directions of a task's metrics: lm-eval's own, and ours on the gold answer.

A metric is named `METRIC`, or `METRIC,FILTER` where it is there by several filters. Ours:

- `gold_loglikelihood`: mean token log-likelihood of the gold answer;
- `gold_probability` (multiple choice): softmax over the choices' summed log-likelihoods, the gold's share;
- `gold_exact_match`: teacher-forced, every token of the gold answer is the most likely one;
- `teacher_divergence`: Kullback-Leibler divergence from a teacher to the model, mean over the positions at
  which the gold answer is read (multiple choice: over the distribution of the choices).

Higher is better for the first three, lower for the last, which needs a job that brings the teacher's word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lm_eval.api.group import Group
from lm_eval.api.metrics import mean
from lm_eval.api.task import Task

from evomerge.errors import TaskError, nearest
from evomerge.tasks.requested import TaskRequest
from evomerge.tasks.tasks import leaves, load_task

Named = tuple[str, str]
"""lm-eval's (metric, filter)."""

GOLD_LOGLIKELIHOOD = "gold_loglikelihood"
GOLD_PROBABILITY = "gold_probability"
GOLD_EXACT_MATCH = "gold_exact_match"
TEACHER_DIVERGENCE = "teacher_divergence"
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
    return own | dict.fromkeys(gold_metrics(loaded), True) | {TEACHER_DIVERGENCE: False}


def gold_metrics(loaded: Task | Group) -> tuple[str, ...]:
    """Return our metrics that a task offers, or that all tasks of a group offer, without a teacher."""
    offered = [_GOLD_METRICS.get(str(task.OUTPUT_TYPE), ()) for task in leaves(loaded)]
    return tuple(metric for metric in offered[0] if all(metric in each for each in offered))


def group_metrics(group: Group) -> dict[str, Named]:
    """Return the metrics that a group aggregates, by name → (metric, filter)."""
    pairs: dict[Named, None] = {}
    for aggregate in group.aggregate_metric_list or ():
        listed = aggregate.filter_list
        wanted = None if listed is None else [listed] if isinstance(listed, str) else listed
        pairs |= {
            (aggregate.metric, name): None
            for task in leaves(group)
            if aggregate.metric in task.aggregation()
            for name in filter_names(task)
            if wanted is None or name in wanted
        }
    return {
        named(pair, [name for metric, name in pairs if metric == pair[0]]): pair for pair in pairs
    }


def named(pair: Named, filters: Sequence[str]) -> str:
    """Return the name of lm-eval's (metric, filter), where the metric is there by these filters."""
    return pair[0] if len(filters) == 1 else ",".join(pair)


def pair_of(task: Task, metric: str) -> Named:
    """Return lm-eval's (metric, filter) of one of a task's own names, or of one of ours."""
    base, _, wanted = metric.partition(",")
    return base, wanted or ("none" if is_gold(base) else filter_names(task)[0])


def is_gold(metric: str) -> bool:
    """Whether a metric is one of ours, which read the gold answer."""
    return metric in (GOLD_LOGLIKELIHOOD, GOLD_PROBABILITY, GOLD_EXACT_MATCH, TEACHER_DIVERGENCE)


def resolve(name: str, loaded: Task | Group, metric: str) -> Named:
    """Return lm-eval's (metric, filter) of a metric, none of ours; `METRIC,FILTER` is always taken.

    Raises:
        TaskError: The task (called `name` in the message) has no such metric; the known ones are named.
    """
    known = group_metrics(loaded) if isinstance(loaded, Group) else _task_metrics(loaded)
    base, _, wanted = metric.partition(",")
    if (base, wanted) in known.values():
        return base, wanted
    _check(name, directions(loaded), metric)
    return known[metric]


def is_item_mean(loaded: Task | Group, metric: str) -> bool:
    """Whether a metric is the plain mean of one number an item.

    Perplexity, F1 or BLEU over a whole corpus are not, nor is a group that counts each of its tasks
    alike whatever their sizes.
    """
    if is_gold(metric):
        return True
    base = metric.partition(",")[0]
    if isinstance(loaded, Group) and not all(
        each.weight_by_size for each in loaded.aggregate_metric_list or () if each.metric == base
    ):
        return False
    return all(task.aggregation().get(base) is mean for task in leaves(loaded))


def filter_names(task: Task) -> tuple[str, ...]:
    """Return the names of a task's filters."""
    return tuple(dict.fromkeys(each.name for each in getattr(task, "_filters", ()))) or ("none",)


def _check(name: str, known: Mapping[str, bool], metric: str) -> None:
    """Raise TaskError, naming the known ones, unless `metric` is known."""
    if metric not in known:
        hint = nearest(metric, known)
        listed = f"known: {', '.join(sorted(known))}"
        text = listed if hint == listed else f"{hint} {listed}"
        raise TaskError(f'task "{name}" has no metric "{metric}"; {text}')


def _task_directions(task: Task) -> dict[str, bool]:
    higher = task.higher_is_better()
    return {name: bool(higher.get(pair[0], True)) for name, pair in _task_metrics(task).items()}


def _task_metrics(task: Task) -> dict[str, Named]:
    filters = filter_names(task)
    pairs = [(metric, name) for metric in task.aggregation() for name in filters]
    return {named(pair, filters): pair for pair in pairs}


def _group_directions(group: Group) -> dict[str, bool]:
    higher: dict[str, bool] = {}
    for task in leaves(group):
        higher |= {metric: bool(better) for metric, better in task.higher_is_better().items()}
    return {name: higher.get(pair[0], True) for name, pair in group_metrics(group).items()}
