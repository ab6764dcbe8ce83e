from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.report.material import Material
from evomerge.report.timeline import Span, StudyClock, spans_of
from tests.report import studies


def span(began: float, seconds: float, worker: str = "node/1") -> Span:
    return Span(worker, began, seconds, "trial", "complete", "trial 0", "search")


def test_a_clock_begins_with_the_first_work_and_leaves_out_interruptions() -> None:
    clock = StudyClock.of([span(100.0, 10.0), span(5_000.0, 10.0), span(105.0, 20.0, "node/2")])
    assert clock.pauses == ((125.0, 5_000.0),)
    assert [clock(when) for when in (100.0, 125.0, 2_000.0, 5_000.0, 5_010.0)] == [
        0,
        25,
        25,
        25,
        35,
    ]


@pytest.mark.parametrize(("gap", "paused"), [(59.0, False), (61.0, True)])
def test_a_minute_in_which_nobody_works_is_an_interruption(gap: float, paused: bool) -> None:
    assert bool(StudyClock.of([span(0.0, 1.0), span(1.0 + gap, 1.0)]).pauses) is paused


def test_work_that_takes_long_may_have_longer_pauses() -> None:
    assert StudyClock.of([span(0.0, 600.0), span(1_100.0, 5.0)]).pauses == ()
    assert StudyClock.of([]) == StudyClock(0.0, ())


def test_spans_are_all_the_work_that_the_store_knows(tmp_path: Path) -> None:
    with studies.write(tmp_path / "out") as store:
        material = Material.of(store)
        spans = material.spans
        trials, rows = material.trials, material.evaluations
    assert [span.began for span in spans] == sorted(span.began for span in spans)
    of_trials = {span.name: span for span in spans if span.work == "trial"}
    assert len(of_trials) == len(trials)
    for trial in trials:
        found, outcome = of_trials[f"trial {trial.number}"], trial.outcome
        assert outcome is not None
        assert (found.began, found.worker) == (outcome.cost.began, outcome.worker)
        assert found.seconds == outcome.cost.merge_seconds + outcome.cost.score_seconds
        assert found.state == trial.state
    assert of_trials["trial 4"].reason == "trial 0 is better"
    assert of_trials["trial 7"].reason == "not finite: NaN in <layer> 3"
    (step,) = (span for span in spans if span.work == "gradient step")
    assert (step.name, step.seconds, step.worker) == ("descent 0, step 0", 2.0, "node/0")
    assert sum(span.work == "row" for span in spans) == len(rows)


def test_what_nobody_worked_on_is_no_span(tmp_path: Path) -> None:
    with studies.create(tmp_path / "out") as store:
        studies.tell(store, 0, studies.outcome("search", (1, 1), began=None))
        assert spans_of(store.trials(), ()) == ()
