from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from evomerge.report import leaderboard, render
from evomerge.report.rows import Goal, Row, SplitScores, Value
from evomerge.report.warnings import readings_note, warning_notes, zero_notes
from evomerge.store import Store

UP = [Goal("t", "nll", "acc")]
DOWN = [Goal("t", "ppl", "ppl", higher_is_better=False, searched_higher_is_better=False)]


def row(lab: SimpleNamespace, name: str, kind: Any, value: float, **more: Any) -> Row:
    tasks = {"t": {"acc": Value(value), "ppl": Value(value), "nll": Value(value)}}
    scores = SplitScores(Value(value), None, tasks, **more)
    return Row(name, kind, None, lab.recipe(), {"holdout": scores, "search": scores}, key=name)


@pytest.mark.parametrize(
    ("goals", "naive", "winner", "said"),
    [(UP, 0.7, 0.6, True), (UP, 0.6, 0.6, False), (DOWN, 5.0, 6.0, True), (DOWN, 6.0, 5.0, False)],
)
def test_a_winner_below_a_naive_merge_is_said_to_be(
    lab: SimpleNamespace, goals: list[Goal], naive: float, winner: float, said: bool
) -> None:
    rows = [
        row(lab, "tools", "expert", 0.9),
        row(lab, "average", "baseline", naive),
        row(lab, "trial 3", "winner", winner),
    ]
    notes = warning_notes(rows, goals, "holdout")
    expected = (
        f"trial 3, the winner, is below a naive merge on the holdout items: average has {naive:.3f}, "
        f"trial 3 {winner:.3f}"
    )
    assert notes == [expected] * said


def test_conditions_and_costs_count_as_they_choose(lab: SimpleNamespace) -> None:
    rows = [
        row(lab, "average", "baseline", 0.9, violations=(0.1,)),
        row(lab, "trial 3", "winner", 0.6, violations=(0.0,)),
    ]
    assert warning_notes(rows, UP, "holdout") == []
    rows[0] = row(lab, "average", "baseline", 0.5, net=0.4, violations=(0.0,))
    rows[1] = row(lab, "trial 3", "winner", 0.6, net=0.3, violations=(0.0,))
    (note,) = warning_notes(rows, UP, "holdout")
    assert note.endswith("average has 0.400, trial 3 0.300")


def test_a_task_that_is_zero_for_every_model_is_named(lab: SimpleNamespace) -> None:
    rows = [row(lab, name, "expert", 0.0) for name in ("one", "two")]
    (note,) = zero_notes(rows, UP, "holdout")
    assert note.startswith("t: every model has 0 of acc on the holdout items")
    assert " of nll on the search items" in zero_notes(rows, UP, "search")[0]
    assert zero_notes(rows, DOWN, "holdout") == []  # nothing could be better
    assert zero_notes([*rows, row(lab, "three", "expert", 0.1)], UP, "holdout") == []
    assert zero_notes(rows[:1], UP, "holdout") == []


def test_more_than_one_reading_of_holdout_is_said(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    assert readings_note(0) is None
    assert readings_note(1) is None
    store = make_store()
    lab.fill(store)
    assert "were read" not in render(leaderboard(store), "markdown", "holdout")
    lab.record(store, "trial 2", "holdout", "winner")
    board = leaderboard(store)
    assert "the holdout items were read 2 times" in render(board, "markdown", "holdout")
