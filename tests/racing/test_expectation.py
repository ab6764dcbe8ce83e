from __future__ import annotations

import math

import pytest

from evomerge.candidate.trial import (
    Estimate,
    Failure,
    FailureKind,
    Outcome,
    Pruned,
    TaskScores,
)
from evomerge.racing import expectation

IDS = {"t": ("a", "b", "c", "d")}


def outcome(*values: float, ids: tuple[str, ...] = IDS["t"]) -> Outcome:
    return Outcome({"t": TaskScores(ids, {"acc": values}, {"acc": Estimate(sum(values))})})


def expected(outcomes: list[Outcome], sign: int = 1) -> tuple[tuple[float, ...], float]:
    means, spread = expectation(outcomes, {"t": "acc"}, {"t": sign}, IDS)
    return means["t"], spread["t"]


def test_good_models_count_more_than_weak_ones():
    weak, good = outcome(0, 0, 0, 1), outcome(1, 1, 1, 0)
    (first, *_, last), spread = expected([weak, good])
    assert first == pytest.approx(16 / 17)
    assert last == pytest.approx(1 / 17)
    assert spread == pytest.approx(4 / 17)
    (upside_down, *_), _ = expected([weak, good], sign=-1)  # an error: the first is the best
    assert upside_down == pytest.approx(1 / 17)


def test_values_are_matched_by_id_and_only_full_outcomes_count():
    first, second = outcome(1, 1, 0, 0), outcome(1, 0, 0, 0)
    turned = outcome(0, 0, 0, 1, ids=("d", "c", "b", "a"))
    failed = Outcome(failure=Failure(FailureKind.TASK, "no"))
    pruned = Outcome({"t": TaskScores(("a",), {"acc": (0.0,)}, {})}, pruned=Pruned("behind", 1))
    broken = outcome(math.nan, 0, 0, 0)
    assert expected([first, turned, failed, pruned, broken]) == expected([first, second])


def test_without_models_anything_may_be():
    assert expected([]) == ((0.0,) * 4, 1.0)
    same = outcome(1, 0, 1, 0)
    assert expected([same, same]) == ((1.0, 0.0, 1.0, 0.0), 0.0)
