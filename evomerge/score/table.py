"""Scores as lm-eval shows them: its dictionary of results, and the table that it prints."""

from __future__ import annotations

from typing import Any

from lm_eval.api.group import Group
from lm_eval.api.task import Task
from lm_eval.utils import make_table

from evomerge.score.items import Items
from evomerge.score.metrics import directions, is_gold, resolve
from evomerge.score.scorer import Scored
from evomerge.score.tasks import leaves, name_of
from evomerge.trial import Split, TaskScores


def lm_eval_results(items: Items, scored: Scored, split: Split) -> dict[str, Any]:
    """Return scores in the form of what `lm_eval.simple_evaluate` returns, without its samples.

    Args:
        items: What was scored.
        scored: The scores.
        split: Which items they are of.

    Returns:
        `results`, `groups` (where there are), `group_subtasks`, `versions`, `n-shot`,
        `higher_is_better` and `n-samples`; metrics are named `METRIC,FILTER` as in lm-eval.
    """
    table: dict[str, Any] = {
        "results": {},
        "group_subtasks": {},
        "versions": {},
        "n-shot": {},
        "higher_is_better": {},
        "n-samples": {},
    }
    for name, scores in scored.tasks.items():
        loaded = items.loaded(name)
        if isinstance(loaded, Group):
            _add_group(table, loaded, scores)
        for leaf in items.leaves(name, split):
            own = scored.subtasks[leaf.name] if isinstance(loaded, Group) else scores
            _add_task(table, leaf.task, own)
    return table


def lm_eval_table(results: dict[str, Any]) -> str:
    """Return the table that `lm_eval` prints of such results, and that of the groups below it."""
    tables = [str(make_table(results))]
    if results.get("groups"):
        tables.append(str(make_table(results, "groups")))
    return "\n".join(tables)


def _add_task(table: dict[str, Any], task: Task, scores: TaskScores) -> None:
    name = name_of(task)
    alias = str(task.get_config("task_alias") or name)
    table["results"][name] = _row(name, alias, task, scores)
    table["versions"][name] = task.VERSION
    table["n-shot"][name] = task.get_config("num_fewshot") or 0
    table["higher_is_better"][name] = _directions(task)
    table["n-samples"][name] = {"original": len(task.eval_docs), "effective": len(scores.items)}


def _add_group(table: dict[str, Any], group: Group, scores: TaskScores) -> None:
    row = _row(group.name, group.alias or group.name, group, scores)
    table["results"][group.name] = row
    table.setdefault("groups", {})[group.name] = row
    table["versions"][group.name] = group.version
    table["higher_is_better"][group.name] = _directions(group)
    for each in (group, *group.get_all_groups()):
        table["group_subtasks"][each.name] = list(each.child_names)
    shots = {task.get_config("num_fewshot") or 0 for task in leaves(group)}
    if len(shots) == 1:
        table["n-shot"][group.name] = shots.pop()


def _row(name: str, alias: str, loaded: Task | Group, scores: TaskScores) -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "alias": alias, "sample_len": len(scores.items)}
    for metric, estimate in scores.values.items():
        base, kind = (metric, "none") if is_gold(metric) else resolve(name, loaded, metric)
        row[f"{base},{kind}"] = estimate.value
        row[f"{base}_stderr,{kind}"] = "N/A" if estimate.stderr is None else estimate.stderr
    return row


def _directions(loaded: Task | Group) -> dict[str, bool]:
    return {name.partition(",")[0]: higher for name, higher in directions(loaded).items()}
