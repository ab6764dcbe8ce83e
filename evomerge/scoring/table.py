"""Scores as lm-eval shows them: its dictionary of results, and the table that it prints."""

from __future__ import annotations

from typing import Any

from lm_eval.api.group import Group
from lm_eval.api.task import Task
from lm_eval.evaluator_utils import EvalAcc, aggregate_groups
from lm_eval.utils import make_table

from evomerge.candidate.trial import Split, TaskScores
from evomerge.scoring.answering import Scored
from evomerge.tasks.items import Items
from evomerge.tasks.metrics import gold_metrics
from evomerge.tasks.scores import group_golds, row_entries, row_of, sample_len
from evomerge.tasks.tasks import leaves, name_of, quiet


def lm_eval_results(items: Items, scored: Scored, split: Split) -> dict[str, Any]:
    """Return scores in the form of what `lm_eval.simple_evaluate` returns, without its samples.

    What concerns groups, nested ones too, is lm-eval's own doing; our `gold_*` metrics are added.

    Returns:
        `results`, `groups` (where there are), `group_subtasks`, `versions`, `n-shot`,
        `higher_is_better` and `n-samples`; metrics are named `METRIC,FILTER` as in lm-eval.
    """
    table = EvalAcc()
    rows: dict[str, TaskScores] = {}
    for name, scores in scored.tasks.items():
        loaded = items.loaded(name)
        if isinstance(loaded, Group):
            table.groups |= {each.name: each for each in (loaded, *loaded.get_all_groups())}
        for leaf in items.leaves(name, split):
            rows[leaf.name] = scored.subtasks[leaf.name] if isinstance(loaded, Group) else scores
            _add_task(table, leaf.task, rows[leaf.name])
    with quiet():  # of groups with metrics that some of their tasks lack
        aggregate_groups(table)
        for group in table.groups.values():
            if group.has_aggregation:
                golds = group_golds(rows[name_of(task)] for task in leaves(group))
                row = row_entries({(name, "none"): each for name, each in golds.items()})
                table.metrics[group.name] = row | table.metrics[group.name]
        results = dict(table._to_eval_results())
    del results["configs"]
    return results


def lm_eval_table(results: dict[str, Any]) -> str:
    """Return the table that `lm_eval` prints of such results, and that of the groups below it."""
    tables = [str(make_table(results))]
    if results.get("groups"):
        tables.append(str(make_table(results, "groups")))
    return "\n".join(tables)


def _add_task(table: EvalAcc, task: Task, scores: TaskScores) -> None:
    name = name_of(task)
    alias = str(task.get_config("task_alias") or name)
    table.metrics[name] = {"name": name, "alias": alias, **row_of(task, scores)}
    table.versions[name] = task.VERSION
    table.num_fewshot[name] = task.get_config("num_fewshot") or 0
    ours = dict.fromkeys(gold_metrics(task), True)
    table.higher_is_better[name] = {**task.higher_is_better(), **ours}
    table.n_samples[name] = {"original": len(task.eval_docs), "effective": sample_len(scores)}
