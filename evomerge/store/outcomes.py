"""An outcome's rows: written in plain SQL, which every trial pays for, and read back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, select

from evomerge.candidate.trial import (
    Cost,
    Entry,
    Estimate,
    Failure,
    FailureKind,
    Outcome,
    Pruned,
    Split,
    TaskScores,
    row_key,
)
from evomerge.store.encoding import (
    decode_items,
    decode_recipe,
    encode_items,
    encode_json,
    encode_recipe,
)
from evomerge.store.records import Evaluation
from evomerge.store.tables import EVALUATIONS, ITEM_SETS, METRICS, PRUNINGS, TASK_SCORES


class ItemSets:
    """Ids of items ↔ the number under which they are stored once."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, ...], int] = {}
        self._ids: dict[int, tuple[str, ...]] = {}

    def number(self, connection: sqlite3.Connection, ids: tuple[str, ...]) -> int:
        """Return the number of `ids`, storing them if they are new."""
        if ids not in self._numbers:
            packed = encode_json(ids)
            known = "SELECT item_set_id FROM evomerge_item_sets WHERE ids = ?"
            insert = "INSERT INTO evomerge_item_sets (ids) VALUES (?) ON CONFLICT DO NOTHING"
            connection.execute(insert, (packed,))
            self._numbers[ids] = int(connection.execute(known, (packed,)).fetchone()[0])
        return self._numbers[ids]

    def forget(self) -> None:
        """Forget all numbers: those of a transaction that failed are nobody's."""
        self._numbers, self._ids = {}, {}

    def ids(self, connection: Connection, number: int) -> tuple[str, ...]:
        """Return the ids stored under `number`."""
        if number not in self._ids:
            query = select(ITEM_SETS.c.ids).where(ITEM_SETS.c.item_set_id == number)
            self._ids[number] = tuple(json.loads(connection.execute(query).scalar_one()))
        return self._ids[number]


@dataclass(frozen=True)
class PackedOutcome:
    """An outcome with its per-item values already packed, so that no transaction waits for it."""

    outcome: Outcome
    per_item: Mapping[tuple[str, str], bytes]

    @classmethod
    def of(cls, outcome: Outcome) -> PackedOutcome:
        """Pack an outcome.

        Raises:
            ResultsError: A metric's values are of a type that cannot be stored.
        """
        return cls(
            outcome,
            {
                (task, metric): encode_items(values)
                for task, scores in outcome.scores.items()
                for metric, values in scores.metrics.items()
            },
        )


@dataclass(frozen=True)
class NewEvaluation:
    """An evaluation to be written.

    Attributes:
        entry: Who was evaluated; the recipe of a `trial` already stands in the trial's row.
        kind: As in `tables.EVALUATIONS`.
        split: Of the items.
        packed: What came of it.
    """

    entry: Entry
    kind: str
    split: Split
    packed: PackedOutcome

    @property
    def key(self) -> str:
        """Who was evaluated, as `row_key` returns it."""
        return row_key(self.kind, self.entry.name, self.entry.number)

    def row(self, evaluation_id: int) -> tuple[object, ...]:
        """Return the row of `tables.EVALUATIONS`."""
        entry, outcome = self.entry, self.packed.outcome
        cost, failure = outcome.cost, outcome.failure
        return (
            evaluation_id,
            self.key,
            self.kind,
            entry.number,
            self.split,
            None if self.kind == "trial" else encode_recipe(entry.candidate),
            None if failure is None else failure.kind.value,
            None if failure is None else failure.reason,
            cost.merge_seconds,
            cost.score_seconds,
            cost.items,
            cost.generated_tokens,
            outcome.worker,
            (failure.trace or None) if failure is not None else None,
        )


def replace_evaluation(
    connection: sqlite3.Connection, item_sets: ItemSets, new: NewEvaluation
) -> None:
    """Write an evaluation's rows; an earlier one of the same model and split is replaced."""
    _delete_evaluation(connection, new.key, new.split)
    insert_evaluations(connection, item_sets, [new])


def insert_evaluations(
    connection: sqlite3.Connection, item_sets: ItemSets, entries: Sequence[NewEvaluation]
) -> None:
    """Write the rows of evaluations of which there are none yet, in one statement a table.

    Args:
        connection: With an open transaction.
        item_sets: Cache of ids.
        entries: In their order.
    """
    evaluation_ids = count(_next_id(connection, EVALUATIONS))
    task_score_ids = count(_next_id(connection, TASK_SCORES))
    evaluations, prunings, tasks, metrics = [], [], [], []
    for new, evaluation_id in zip(entries, evaluation_ids, strict=False):
        evaluations.append(new.row(evaluation_id))
        outcome, per_item = new.packed.outcome, new.packed.per_item
        if outcome.pruned is not None:
            pruned = outcome.pruned
            prunings.append((evaluation_id, pruned.reason, pruned.blocks, pruned.rival))
        for task, scores in outcome.scores.items():
            task_score_id = next(task_score_ids)
            item_set = item_sets.number(connection, scores.items)
            tasks.append((task_score_id, evaluation_id, task, item_set, scores.truncated))
            for name in dict.fromkeys([*scores.metrics, *scores.values]):
                estimate = _packed_estimate(scores.values.get(name))
                metrics.append((task_score_id, name, estimate, per_item.get((task, name))))
    connection.executemany(_INSERT_EVALUATION, evaluations)
    connection.executemany(_INSERT_PRUNING, prunings)
    connection.executemany(_INSERT_TASK_SCORES, tasks)
    connection.executemany(_INSERT_METRIC, metrics)


def read_evaluations(
    connection: Connection, item_sets: ItemSets, condition: ColumnElement[bool]
) -> list[Evaluation]:
    """Read evaluations other than the search scores of trials, oldest first.

    Args:
        connection: With an open transaction.
        item_sets: Cache of ids.
        condition: On the columns of `tables.EVALUATIONS`.
    """
    condition = and_(EVALUATIONS.c.kind != "trial", condition)
    return [
        Evaluation(row.key, row.kind, row.number, row.split, decode_recipe(row.recipe), outcome)
        for row, outcome in _read_outcomes(connection, item_sets, condition)
    ]


def read_trial_outcomes(connection: Connection, item_sets: ItemSets) -> dict[int, Outcome]:
    """Read the search scores of all trials: number → outcome."""
    found = _read_outcomes(connection, item_sets, EVALUATIONS.c.kind == "trial")
    return {row.number: outcome for row, outcome in found}


def _insertion(table: Table, *, left_out: str = "") -> str:
    columns = [column.name for column in table.columns if column.name != left_out]
    places = ", ".join("?" * len(columns))
    return f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({places})"


_INSERT_EVALUATION = _insertion(EVALUATIONS)
_INSERT_PRUNING = _insertion(PRUNINGS)
_INSERT_TASK_SCORES = _insertion(TASK_SCORES)
_INSERT_METRIC = _insertion(METRICS, left_out="metric_id")


def _delete_evaluation(connection: sqlite3.Connection, key: str, split: Split) -> None:
    known = "SELECT evaluation_id FROM evomerge_evaluations WHERE key = ? AND split = ?"
    row = connection.execute(known, (key, split)).fetchone()
    if row is None:
        return
    connection.execute(
        "DELETE FROM evomerge_metrics WHERE task_score_id IN "
        "(SELECT task_score_id FROM evomerge_task_scores WHERE evaluation_id = ?)",
        row,
    )
    connection.execute("DELETE FROM evomerge_prunings WHERE evaluation_id = ?", row)
    connection.execute("DELETE FROM evomerge_task_scores WHERE evaluation_id = ?", row)
    connection.execute("DELETE FROM evomerge_evaluations WHERE evaluation_id = ?", row)


def _next_id(connection: sqlite3.Connection, table: Table) -> int:
    (key,) = table.primary_key.columns.keys()
    row = connection.execute(f"SELECT max({key}) FROM {table.name}").fetchone()
    return int(row[0] or 0) + 1


def _packed_estimate(estimate: Estimate | None) -> str | None:
    return None if estimate is None else encode_json([estimate.value, estimate.stderr])


def _read_outcomes(
    connection: Connection, item_sets: ItemSets, condition: ColumnElement[bool]
) -> list[tuple[Row[Any], Outcome]]:
    query = select(EVALUATIONS).where(condition).order_by(EVALUATIONS.c.evaluation_id)
    rows = connection.execute(query).all()
    scores = _read_scores(connection, item_sets, condition)
    prunings = _read_prunings(connection)
    return [
        (row, _outcome(row, scores.get(row.evaluation_id, {}), prunings.get(row.evaluation_id)))
        for row in rows
    ]


def _read_prunings(connection: Connection) -> dict[int, Pruned]:
    return {
        row.evaluation_id: Pruned(row.reason, row.blocks, row.rival)
        for row in connection.execute(select(PRUNINGS))
    }


def _read_scores(
    connection: Connection, item_sets: ItemSets, condition: ColumnElement[bool]
) -> dict[int, dict[str, TaskScores]]:
    tasks = connection.execute(
        select(TASK_SCORES)
        .join(EVALUATIONS, EVALUATIONS.c.evaluation_id == TASK_SCORES.c.evaluation_id)
        .where(condition)
        .order_by(TASK_SCORES.c.task_score_id)
    ).all()
    metrics = connection.execute(
        select(METRICS)
        .join(TASK_SCORES, TASK_SCORES.c.task_score_id == METRICS.c.task_score_id)
        .join(EVALUATIONS, EVALUATIONS.c.evaluation_id == TASK_SCORES.c.evaluation_id)
        .where(condition)
        .order_by(METRICS.c.metric_id)
    ).all()
    by_task: dict[int, list[Row[Any]]] = {}
    for row in metrics:
        by_task.setdefault(row.task_score_id, []).append(row)
    scores: dict[int, dict[str, TaskScores]] = {}
    for row in tasks:
        ids = item_sets.ids(connection, row.item_set_id)
        found = by_task.get(row.task_score_id, [])
        scores.setdefault(row.evaluation_id, {})[row.task] = _task_scores(row, ids, found)
    return scores


def _task_scores(row: Row[Any], ids: tuple[str, ...], metrics: Iterable[Row[Any]]) -> TaskScores:
    return TaskScores(
        items=ids,
        metrics={m.metric: decode_items(m.per_item) for m in metrics if m.per_item is not None},
        values={m.metric: Estimate(*json.loads(m.estimate)) for m in metrics if m.estimate},
        truncated=row.truncated,
    )


def _outcome(row: Row[Any], scores: Mapping[str, TaskScores], pruned: Pruned | None) -> Outcome:
    failure = None
    if row.failure_kind is not None:
        failure = Failure(
            FailureKind(row.failure_kind), row.failure_reason, row.failure_trace or ""
        )
    cost = Cost(row.merge_seconds, row.score_seconds, row.items, row.generated_tokens)
    return Outcome(scores, failure, cost, row.worker, pruned)
