from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from evomerge.candidate.trial import Estimate, Failure, FailureKind, Outcome, TaskScores
from evomerge.objective.references import References, value_on


def test_they_are_picked_by_kind_and_split_without_failures(made: SimpleNamespace) -> None:
    broken = Outcome(failure=Failure(FailureKind.MERGE, "no"))
    found = References.of(
        [
            made.evaluation("base", "base", made.outcome(0.1)),
            made.evaluation("one", "expert", made.outcome(0.9)),
            made.evaluation("one", "expert", made.outcome(0.5), "select"),
            made.evaluation("two", "expert", broken),
            made.evaluation("ties", "baseline", made.outcome(0.6)),
            made.evaluation("trial 3", "finalist", made.outcome(1.0)),
        ],
        "search",
    )
    assert found.base is not None
    assert list(found.experts) == ["one"]
    assert list(found.baselines) == ["ties"]
    assert found.best_value("best_expert", "exam", "acc", higher=True) == 0.9
    assert found.best_value("base", "exam", "acc", higher=True) == 0.1
    assert found.best_value("best_baseline", "exam", "acc", higher=True) == 0.6


def test_the_best_is_best_at_the_task_in_its_direction(made: SimpleNamespace) -> None:
    experts = {"one": made.outcome(0.9, 8.0), "two": made.outcome(0.2, 3.0)}
    found = References(experts=experts)
    assert found.best_value("best_expert", "exam", "acc", higher=True) == 0.9
    assert found.best_value("best_expert", "text", "word_perplexity", higher=False) == 3.0


def test_who_was_not_scored_is_no_reference(made: SimpleNamespace) -> None:
    assert References().best_value("base", "exam", "acc", higher=True) is None
    found = References(experts={"one": made.outcome(0.9)})
    assert found.best("best_expert", "exam", "f1", higher=True) is None


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        (FailureKind.OUT_OF_MEMORY, False),
        (FailureKind.WORKER, False),
        (FailureKind.TASK, False),
        (FailureKind.COLLAPSED, True),
        (FailureKind.NOT_FINITE, True),
    ],
)
def test_a_model_that_could_not_be_scored_might_be_the_best(
    made: SimpleNamespace, kind: FailureKind, known: bool
) -> None:
    """One that collapsed is not."""
    found = References.of(
        [
            made.evaluation("one", "expert", made.outcome(0.2)),
            made.evaluation("two", "expert", Outcome(failure=Failure(kind, "no"))),
            made.evaluation("ties", "baseline", made.outcome(0.6)),
        ],
        "search",
    )
    assert (found.reference("best_expert", "exam", "acc", higher=True) is not None) is known
    assert found.reference("best_baseline", "exam", "acc", higher=True) is not None


def test_no_number_is_no_best(made: SimpleNamespace) -> None:
    found = References(experts={"one": made.outcome(math.nan), "two": made.outcome(0.2)})
    assert found.best_value("best_expert", "exam", "acc", higher=True) == 0.2


def scores(values: tuple[float, ...], value: float) -> TaskScores:
    ids = tuple("abcd"[: len(values)])
    return TaskScores(ids, {"m": values}, {"m": Estimate(value)})


@pytest.mark.parametrize(
    ("items", "expected"),
    [("ab", 1.0), ("d", 0.0), ("abcd", 0.5), ("", 0.5), ("ax", 0.5)],
)
def test_values_on_some_of_the_items(items: str, expected: float) -> None:
    assert value_on(scores((1.0, 1.0, 0.0, 0.0), 0.5), "m", tuple(items)) == expected


def test_what_is_no_mean_is_not_taken_apart() -> None:
    assert value_on(scores((1.0, 2.0), 7.4), "m", ("a",)) == 7.4
    pairs = TaskScores(("a", "b"), {"m": ((1, 0), (0, 1))}, {"m": Estimate(0.3)})
    assert value_on(pairs, "m", ("a",)) == 0.3
