from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from evomerge.candidate import Candidate, Merge, Size
from evomerge.candidate.cost import Cost
from evomerge.candidate.timing import Timing
from evomerge.candidate.trial import SPLITS, Outcome
from evomerge.config import CostName
from evomerge.objective.costs import is_timed, relative_cost, relative_time
from evomerge.objective.references import References

SIZE = Size((10, 10, 20), 20)


def larger(base: Size) -> float:
    return (base.total + sum(base.layers[1:])) / base.total


LARGER = cast(Candidate, SimpleNamespace(size=larger, active=lambda base: 1.25))


def test_a_merge_is_as_large_as_the_base() -> None:
    assert Merge("linear", ("/m/one",)).size(SIZE) == 1.0
    assert Merge("linear", ("/m/one",)).active(SIZE) == 1.0


COSTS: tuple[CostName, ...] = ("parameters", "active_parameters", "generated_tokens")


def costs(mine: Outcome, candidate: Candidate | None, known: References) -> list[float]:
    return [relative_cost(cost, mine, candidate, known, SIZE) for cost in COSTS]


def test_costs_are_relative_to_the_base(made: SimpleNamespace) -> None:
    known = References(base=made.outcome(0.1, cost=Cost(9.0, 4.0, 8, 80)))
    mine = made.outcome(0.1, cost=Cost(0.0, 4.0, 4, 20))
    assert costs(mine, LARGER, known) == [1.5, 1.25, 0.5]
    assert costs(mine, None, known) == [1.0, 1.0, 0.5]


def test_without_anything_to_compare_with_costs_are_equal(made: SimpleNamespace) -> None:
    mine = made.outcome(0.1)
    assert costs(mine, None, References()) == [1.0, 1.0, 1.0]
    known = References(base=mine)
    assert costs(made.outcome(0.1, cost=Cost()), None, known)[2] == 1.0
    assert relative_cost("parameters", mine, LARGER, known, Size()) == 1.0


def test_a_copy_is_free_and_its_model_as_costly(made: SimpleNamespace) -> None:
    known = References(base=made.outcome(0.1, cost=Cost(9.0, 4.0, 8, 80)))
    spent = Cost(1.0, 4.0, 4, 20)
    for copied in (spent.copy(), spent.copy().copy()):
        assert (copied.items, copied.generated_tokens, copied.score_seconds) == (0, 0, 0.0)
        assert costs(made.outcome(0.1, cost=copied), LARGER, known) == [1.5, 1.25, 0.5]


def test_equal_models_cost_the_same_however_long_they_took(made: SimpleNamespace) -> None:
    known = References(base=made.outcome(0.1, cost=Cost(1.0, 4.0, 8, 80)))
    slow, fast = (made.outcome(0.1, cost=Cost(1.0, seconds, 8, 96)) for seconds in (9.0, 3.0))
    assert costs(slow, LARGER, known) == costs(fast, LARGER, known)


def test_the_time_is_measured_and_rounded_to_what_noise_leaves(made: SimpleNamespace) -> None:
    mine = made.outcome(0.1)
    for relative, known in ((1.262, 1.25), (1.28, 1.3), (0.004, 0.05), (2.0, 2.0)):
        timed = replace(mine, timing=Timing(1.0, 1.0, relative, 0.01, 15))
        assert relative_time(timed, LARGER) == pytest.approx(known)
    assert relative_time(mine, LARGER) == math.inf  # nobody timed it
    merge = Merge("linear", ("/m/one",))
    assert relative_time(mine, merge) == relative_time(mine, None) == 1.0
    slow = replace(mine, timing=Timing(9.0, 1.0, 9.0, 0.01, 15))
    assert relative_time(slow, merge) == 1.0  # a merge is computed as the base is


def test_what_is_no_merge_is_timed_where_that_counts_or_is_reported() -> None:
    merge = Merge("linear", ("/m/one",))
    assert not any(is_timed(merge, ["time"], split) for split in SPLITS)
    assert [is_timed(LARGER, ["time"], split) for split in SPLITS] == [True, True, True]
    assert [is_timed(LARGER, ["parameters"], split) for split in SPLITS] == [False, True, False]
