from __future__ import annotations

from collections.abc import Callable

from evomerge.candidate.trial import Entry, Estimate, Outcome, TaskScores
from evomerge.store import StoredTrial
from evomerge.store.records import by_task


def test_a_trial_as_a_row(
    candidate: Callable[..., Entry], scored: Outcome, failed: Outcome
) -> None:
    recipe = candidate(5).candidate
    form = recipe.text()
    done = StoredTrial(5, {"w": 0.5}, form, "complete", scored, (0.25,), 8, 9)
    assert done.entry == candidate(5)
    assert done.to_row() == {
        "number": 5,
        "state": "complete",
        "method": recipe.method,
        "value": 0.25,
        **by_task(scored),
        "seconds": 1.75,
        "merge_seconds": 0.25,
        "score_seconds": 1.5,
        "failure": None,
        "params_w": 0.5,
    }
    lost = StoredTrial(6, {"w": 0.5}, form, "failed", failed, None, 8, 9)
    assert lost.to_row()["failure"] == "not finite: NaN in layer 3"
    front = StoredTrial(7, {}, form, "complete", None, (1.0, 2.0), 8, 9)
    assert front.to_row() == {
        "number": 7,
        "state": "complete",
        "method": recipe.method,
        "value_0": 1.0,
        "value_1": 2.0,
    }


def test_scores_by_task_are_the_aggregates_that_are_numbers() -> None:
    values = {"acc": Estimate(0.5, 0.1), "ppl": Estimate(float("nan"))}
    outcome = Outcome({"t": TaskScores(("a",), {"acc": (0.5,)}, values)})
    assert by_task(outcome) == {"t/acc": 0.5}
