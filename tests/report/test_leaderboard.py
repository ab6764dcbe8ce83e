from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from evomerge.errors import ResultsError
from evomerge.report.leaderboard import Leaderboard, leaderboard
from evomerge.store import Store
from evomerge.trial import Failure, FailureKind, Outcome


def test_the_rows_of_a_finished_campaign(board: Leaderboard) -> None:
    assert [(row.kind, row.name) for row in board.rows] == [
        ("base", "base"),
        ("expert", "extraction"),
        ("expert", "tools"),
        ("baseline", "uniform average"),
        ("baseline", "task arithmetic λ=0.4 (tuned)"),
        ("baseline", "task arithmetic λ=0.8"),
        ("baseline", "ties"),
        ("finalist", "trial 2"),
        ("winner", "trial 1"),
    ]
    assert board.latest_split() == "holdout"
    assert [row.name for row in board.winners] == ["trial 1"]


def test_a_trial_is_joined_over_its_splits(board: Leaderboard) -> None:
    winner = board.row("trial 1")
    assert list(winner.splits) == ["search", "select", "holdout"]
    assert winner.trial == 1
    assert winner.cost.items == 3 * (24 + 24 + 80)
    assert winner.cost.merge_seconds == 1.5


def test_splits_that_were_not_scored_are_absent(board: Leaderboard) -> None:
    assert list(board.row("trial 2").splits) == ["search", "select"]
    assert board.row("trial 2").objective("holdout") is None
    with pytest.raises(KeyError):
        board.row("trial 0")


def test_a_running_campaign_shows_its_leading_trials(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store()
    lab.fill(store, until="search")
    board = leaderboard(store)
    assert board.latest_split() == "search"
    finalists = [row.name for row in board.rows if row.kind == "finalist"]
    assert finalists == ["trial 1", "trial 2"]
    assert board.winners == ()
    assert board.tests.contrasts == ()
    assert "(tuned)" not in " ".join(row.name for row in board.rows)


def test_an_empty_campaign_has_no_rows(make_store: Callable[..., Store]) -> None:
    board = leaderboard(make_store())
    assert board.rows == ()
    assert board.latest_split() == "search"


def test_a_failed_row_keeps_its_reason(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store()
    failed = Outcome(failure=Failure(FailureKind.MERGE, "opposed inputs"))
    lab.record(store, "ties", "search", "baseline", failed)
    (row,) = leaderboard(store).rows
    assert row.splits["search"].failure == "merge: opposed inputs"
    assert row.objective("search") is None


def test_finalists_stand_best_first(make_store: Callable[..., Store], lab: SimpleNamespace) -> None:
    store = make_store()
    lab.fill(store, until="search")
    for number in (0, 2, 1):
        lab.record(store, f"trial {number}", "select", "finalist")
    assert [r.name for r in leaderboard(store).rows if r.kind == "finalist"] == [
        "trial 1",
        "trial 2",
        "trial 0",
    ]


def test_a_pareto_campaign_marks_its_front(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store(mode="pareto")
    for number, rates in enumerate([(1.0, 0.0, 1.0), (0.0, 1.0, 1.0), (0.0, 0.0, 1.0)]):
        found = lab.outcome(f"trial {number}", "select", rates)
        lab.record(store, f"trial {number}", "select", "finalist", found)
    fronts = {row.name: row.front for row in leaderboard(store).rows}
    assert fronts == {"trial 0": True, "trial 1": True, "trial 2": False}


def test_it_comes_back_from_json(board: Leaderboard) -> None:
    text = json.dumps(board.to_json(), allow_nan=False)
    assert Leaderboard.from_json(json.loads(text)) == board


def test_another_schema_is_refused(board: Leaderboard) -> None:
    data = board.to_json()
    with pytest.raises(ResultsError, match="schema 99, expected 1"):
        Leaderboard.from_json({**data, "schema": 99})


def test_two_readings_are_equal(store: Store) -> None:
    assert leaderboard(store) == leaderboard(store)
