"""What the study database holds, as frozen values; and an outcome's rows, written and read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, insert, select

from evomerge.recipe import Recipe
from evomerge.store.encoding import (
    decode_items,
    decode_recipe,
    encode_items,
    encode_json,
    encode_recipe,
)
from evomerge.store.tables import EVALUATIONS, ITEM_SETS, METRICS, TASK_SCORES
from evomerge.trial import (
    Candidate,
    Cost,
    Estimate,
    Failure,
    FailureKind,
    Outcome,
    Split,
    TaskScores,
)

State = Literal["asked", "complete", "failed"]


@dataclass(frozen=True)
class StoredTrial:
    """A trial of the campaign.

    Attributes:
        number: From 0, without gaps.
        params: Point of the space.
        recipe: The candidate's.
        state: `asked` (no outcome yet), `complete` or `failed`.
        outcome: What came of it; None as long as it is only asked.
        values: Objective values as told to the sampler; None unless complete.
        asked_seq: Place in the order of all events, asked and told.
        told_seq: Place of its outcome in the same order; None as long as it is only asked.
    """

    number: int
    params: Mapping[str, float]
    recipe: Recipe
    state: State
    outcome: Outcome | None
    values: tuple[float, ...] | None
    asked_seq: int
    told_seq: int | None

    @property
    def candidate(self) -> Candidate:
        """What was evaluated."""
        return Candidate(f"trial {self.number}", self.recipe, self.number)

    def to_row(self) -> dict[str, Any]:
        """Return one flat row for a table: number, state, values, parameters, seconds, failure."""
        row: dict[str, Any] = {"number": self.number, "state": self.state}
        values = self.values or ()
        row |= {"value" if len(values) == 1 else f"value_{i}": v for i, v in enumerate(values)}
        if self.outcome is not None:
            cost, failure = self.outcome.cost, self.outcome.failure
            row |= {"merge_seconds": cost.merge_seconds, "score_seconds": cost.score_seconds}
            row |= {"failure": None if failure is None else f"{failure.kind}: {failure.reason}"}
        return row | {f"params_{name}": value for name, value in self.params.items()}


@dataclass(frozen=True)
class StoredBaseline:
    """A point told to the sampler that no trial asked for."""

    params: Mapping[str, float]
    values: tuple[float, ...]
    seq: int


@dataclass(frozen=True)
class Evaluation:
    """Scores of a row of the leaderboard on one split.

    Attributes:
        name: `base`, an expert's name, a baseline's, or `trial 17`.
        kind: `base`, `expert`, `baseline`, `finalist` or `winner`.
        number: The trial's number; None for what is no trial.
        split: Of the items.
        recipe: The model's.
        outcome: Its scores, or why there are none.
    """

    name: str
    kind: str
    number: int | None
    split: Split
    recipe: Recipe
    outcome: Outcome


class ItemSets:
    """Ids of items ↔ the number under which they are stored once."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, ...], int] = {}
        self._ids: dict[int, tuple[str, ...]] = {}

    def number(self, connection: Connection, ids: tuple[str, ...]) -> int:
        """Return the number of `ids`, storing them if they are new."""
        if ids not in self._numbers:
            packed = encode_json(ids)
            known = select(ITEM_SETS.c.item_set_id).where(ITEM_SETS.c.ids == packed)
            number = connection.execute(known).scalar()
            if number is None:
                result = connection.execute(insert(ITEM_SETS).values(ids=packed))
                return int(result.inserted_primary_key[0])  # type: ignore[index] # not sure to be kept
            self._numbers[ids] = int(number)
        return self._numbers[ids]

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


def insert_evaluation(
    connection: Connection,
    item_sets: ItemSets,
    candidate: Candidate,
    kind: str,
    split: Split,
    packed: PackedOutcome,
) -> None:
    """Write an outcome's rows; an earlier one of the same name and split is replaced.

    The recipe of a `trial` already stands in the trial's row.
    """
    _delete_evaluation(connection, candidate.name, split)
    outcome, cost, failure = packed.outcome, packed.outcome.cost, packed.outcome.failure
    row = connection.execute(
        insert(EVALUATIONS).values(
            name=candidate.name,
            kind=kind,
            number=candidate.number,
            split=split,
            recipe=None if kind == "trial" else encode_recipe(candidate.recipe),
            failure_kind=None if failure is None else failure.kind.value,
            failure_reason=None if failure is None else failure.reason,
            merge_seconds=cost.merge_seconds,
            score_seconds=cost.score_seconds,
            items=cost.items,
            generated_tokens=cost.generated_tokens,
            worker=outcome.worker,
        )
    )
    evaluation_id = row.inserted_primary_key[0]  # type: ignore[index]
    for task, scores in outcome.scores.items():
        row = connection.execute(
            insert(TASK_SCORES).values(
                evaluation_id=evaluation_id,
                task=task,
                item_set_id=item_sets.number(connection, scores.items),
                truncated=scores.truncated,
            )
        )
        names = dict.fromkeys([*scores.metrics, *scores.values])
        metrics = [
            {
                "task_score_id": row.inserted_primary_key[0],  # type: ignore[index]
                "metric": name,
                "estimate": _packed_estimate(scores.values.get(name)),
                "per_item": packed.per_item.get((task, name)),
            }
            for name in names
        ]
        if metrics:
            connection.execute(insert(METRICS), metrics)


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
        Evaluation(row.name, row.kind, row.number, row.split, decode_recipe(row.recipe), outcome)
        for row, outcome in _read_outcomes(connection, item_sets, condition)
    ]


def read_trial_outcomes(connection: Connection, item_sets: ItemSets) -> dict[int, Outcome]:
    """Read the search scores of all trials: number → outcome."""
    found = _read_outcomes(connection, item_sets, EVALUATIONS.c.kind == "trial")
    return {row.number: outcome for row, outcome in found}


def _delete_evaluation(connection: Connection, name: str, split: Split) -> None:
    known = select(EVALUATIONS.c.evaluation_id).where(
        EVALUATIONS.c.name == name, EVALUATIONS.c.split == split
    )
    if connection.execute(known).first() is None:
        return
    tasks = select(TASK_SCORES.c.task_score_id).where(TASK_SCORES.c.evaluation_id.in_(known))
    connection.execute(delete(METRICS).where(METRICS.c.task_score_id.in_(tasks)))
    connection.execute(delete(TASK_SCORES).where(TASK_SCORES.c.evaluation_id.in_(known)))
    connection.execute(
        delete(EVALUATIONS).where(EVALUATIONS.c.name == name, EVALUATIONS.c.split == split)
    )


def _packed_estimate(estimate: Estimate | None) -> str | None:
    return None if estimate is None else encode_json([estimate.value, estimate.stderr])


def _read_outcomes(
    connection: Connection, item_sets: ItemSets, condition: ColumnElement[bool]
) -> list[tuple[Row[Any], Outcome]]:
    query = select(EVALUATIONS).where(condition).order_by(EVALUATIONS.c.evaluation_id)
    rows = connection.execute(query).all()
    scores = _read_scores(connection, item_sets, condition)
    return [(row, _outcome(row, scores.get(row.evaluation_id, {}))) for row in rows]


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


def _outcome(row: Row[Any], scores: Mapping[str, TaskScores]) -> Outcome:
    failure = None
    if row.failure_kind is not None:
        failure = Failure(FailureKind(row.failure_kind), row.failure_reason)
    cost = Cost(row.merge_seconds, row.score_seconds, row.items, row.generated_tokens)
    return Outcome(scores, failure, cost, row.worker)
