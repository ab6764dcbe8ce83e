from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import true

from evomerge.candidate.trial import Entry, Estimate, Outcome, TaskScores
from evomerge.errors import ResultsError
from evomerge.store.database import create_database, open_engine, plain, transaction
from evomerge.store.outcomes import (
    ItemSets,
    NewEvaluation,
    PackedOutcome,
    insert_evaluations,
    read_evaluations,
    replace_evaluation,
)


def test_an_outcome_comes_back_and_a_second_replaces_it(
    tmp_path: Path, candidate: Callable[..., Entry], scored: Outcome, failed: Outcome
) -> None:
    path = tmp_path / "study.db"
    create_database(path, "a study", ["maximize"])
    engine = open_engine(path, write=True)
    for outcome in (failed, scored):
        with transaction(engine, path) as connection:
            packed = PackedOutcome.of(outcome)
            new = NewEvaluation(candidate(3), "finalist", "select", packed)
            replace_evaluation(plain(connection), ItemSets(), new)
    with transaction(engine, path) as connection:
        (found,) = read_evaluations(connection, ItemSets(), true())
        counts = [
            connection.exec_driver_sql(f"SELECT count(*) FROM evomerge_{table}").scalar()
            for table in ("evaluations", "task_scores", "metrics", "item_sets")
        ]
    engine.dispose()
    assert (found.name, found.kind, found.number, found.split) == (
        "trial 3",
        "finalist",
        3,
        "select",
    )
    assert found.candidate == candidate(3).candidate
    assert found.outcome == scored
    assert counts == [1, 2, 4, 2]


def test_item_ids_are_stored_once(
    tmp_path: Path, candidate: Callable[..., Entry], scored: Outcome
) -> None:
    path = tmp_path / "study.db"
    create_database(path, "a study", ["maximize"])
    engine = open_engine(path, write=True)
    packed = PackedOutcome.of(scored)
    with transaction(engine, path) as connection:
        for several in ((0, 1), (2, 3)):
            new = [NewEvaluation(candidate(n), "finalist", "holdout", packed) for n in several]
            insert_evaluations(plain(connection), ItemSets(), new)
    with transaction(engine, path) as connection:
        count = connection.exec_driver_sql("SELECT count(*) FROM evomerge_item_sets").scalar()
        found = read_evaluations(connection, ItemSets(), true())
    engine.dispose()
    assert count == 2
    assert [evaluation.outcome for evaluation in found] == [scored] * 4


def test_an_aggregate_may_be_no_number(tmp_path: Path, candidate: Callable[..., Entry]) -> None:
    path = tmp_path / "study.db"
    create_database(path, "a study", ["maximize"])
    engine = open_engine(path, write=True)
    values = {"a": Estimate(float("nan"), 0.1), "b": Estimate(float("-inf"), float("nan"))}
    outcome = Outcome({"task": TaskScores(("x",), {}, values)})
    with transaction(engine, path) as connection:
        packed = PackedOutcome.of(outcome)
        new = NewEvaluation(candidate(0), "finalist", "holdout", packed)
        replace_evaluation(plain(connection), ItemSets(), new)
        (found,) = read_evaluations(connection, ItemSets(), true())
    engine.dispose()
    assert repr(found.outcome) == repr(outcome)


def test_what_cannot_be_stored_is_refused_before_any_transaction() -> None:
    scores = TaskScores(("x",), {"odd": (object(),)}, {})
    with pytest.raises(ResultsError, match="cannot be stored"):
        PackedOutcome.of(Outcome({"task": scores}))
