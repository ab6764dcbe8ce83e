from __future__ import annotations

import json

import pytest

from evomerge.candidate.trial import Failure, FailureKind, Gradients, Outcome
from evomerge.report.failures import why_nothing_scored
from evomerge.report.formats import render
from evomerge.report.leaderboard import leaderboard

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
    nan, task = leaderboard(failing).failures
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
    assert data == board.to_json()


def test_gradients_fail_too(make_store):
    store = make_store()
    assert leaderboard(store).failures == ()
    assert why_nothing_scored(store) == ""
    failed = Gradients(failure=Failure(FailureKind.OUT_OF_MEMORY, "3 GB wanted", "Traceback 7"))
    store.gradient_asked(0, 2, {"arc": (1,)}, {"weight": 0.5})
    store.gradient_told(0, 2, None, {}, "out of memory: 3 GB wanted", 1, failed)
    (group,) = leaderboard(store).failures
    assert (group.kind, group.reason) == ("out of memory", "3 GB wanted")
    assert group.rows == ("descent 0, step 2",)
    assert group.traceback == "Traceback 7"


def test_the_end_of_a_campaign_says_why(failing):
    said = why_nothing_scored(failing)
    assert said.startswith(f": failed 3 times, not finite: {NAN.format(1)} (trial 1, trial 2); ")
    assert said.endswith(f"for tracebacks: evomerge report {failing.folder} --format json")


def test_many_reasons_and_names_are_counted(lab, make_store):
    store = make_store()
    for number in range(9):
        reason = "no" * max(number - 3, 1)  # five alike, then four others
        lab.tell(store, number, Outcome(failure=Failure(FailureKind.MERGE, reason)))
    said = why_nothing_scored(store)
    assert "failed 5 times, merge: no (trial 0, trial 1, trial 2, and 2 more); failed once" in said
    assert "; and 2 more; for tracebacks" in said
