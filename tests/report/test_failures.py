from __future__ import annotations

import json

import pytest

from evomerge.report import Leaderboard, because, leaderboard, render
from evomerge.report.failures import failure_notes, failures_of
from evomerge.trial import Failure, FailureKind, Outcome

NAN = "tensor model.layers.{}.mlp is NaN"


@pytest.fixture
def failing(lab, make_store):
    """Trials and a finalist that failed: three alike but for a number, one in another way."""
    store = make_store()
    lab.tell(store, 0, lab.outcome("trial 0", "search"))
    for number in (1, 2):
        failure = Failure(FailureKind.NOT_FINITE, NAN.format(number), f"Traceback {number}")
        lab.tell(store, number, Outcome(failure=failure))
    lab.tell(store, 3, Outcome(failure=Failure(FailureKind.TASK, "KeyError: 'x'")))
    again = Outcome(failure=Failure(FailureKind.NOT_FINITE, NAN.format(31)))
    lab.record(store, "trial 1", "select", "finalist", again)
    return store


def test_failures_that_differ_in_numbers_only_are_one(failing):
    nan, task = failures_of(failing)
    assert (nan.kind, nan.reason, nan.count) == ("not finite", NAN.format(1), 3)
    assert nan.rows == ("trial 1", "trial 2")
    assert nan.splits == ("search", "select")
    assert nan.traceback == "Traceback 1"
    assert (task.kind, task.count, task.rows, task.traceback) == ("task", 1, ("trial 3",), "")


def test_they_stand_below_the_table_and_in_json(failing):
    board = leaderboard(failing)
    shown = render(board, "markdown", "search")
    assert f"failed 3 times, not finite: {NAN.format(1)} (trial 1, trial 2)" in shown
    assert "failed once, task: KeyError: 'x' (trial 3)" in shown
    assert "report DIR --format json" in shown
    assert "Traceback 1" not in shown
    data = json.loads(render(board, "json"))
    assert [group["count"] for group in data["failures"]] == [3, 1]
    assert data["failures"][0]["traceback"] == "Traceback 1"
    assert Leaderboard.from_json(data).failures == board.failures


def test_steps_of_a_descent_fail_too(lab, make_store):
    store = make_store()
    assert failures_of(store) == ()
    assert failure_notes(()) == []
    assert because(store, store.folder) == ""
    store.slope_asked(0, 2, {"arc": (1,)}, {"weight": 0.5})
    store.slope_told(0, 2, None, {}, "out of memory: 3 GB wanted", 1, "Traceback 7")
    (group,) = failures_of(store)
    assert (group.kind, group.reason) == ("out of memory", "3 GB wanted")
    assert group.rows == ("descent 0, step 2",)
    assert group.traceback == "Traceback 7"


def test_the_end_of_a_campaign_says_why(failing):
    said = because(failing, failing.folder)
    assert said.startswith(f": failed 3 times, not finite: {NAN.format(1)} (trial 1, trial 2); ")
    assert said.endswith(f"for tracebacks: evomerge report {failing.folder} --format json")
