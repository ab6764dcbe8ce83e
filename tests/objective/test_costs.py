from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from evomerge.candidate import Candidate, Merge, Size
from evomerge.candidate.trial import Cost
from evomerge.objective.costs import relative_costs, tokens_per_item
from evomerge.objective.references import References

SIZE = Size((10, 10, 20), 20)
COSTS = [{"cost": cost} for cost in ("parameters", "generated_tokens")]


def larger(base: Size) -> float:
    return (base.total + sum(base.layers[1:])) / base.total


LARGER = cast(Candidate, SimpleNamespace(size=larger))


def test_a_merge_is_as_large_as_the_base() -> None:
    assert Merge("linear", ("/m/one",)).size(SIZE) == 1.0
    assert Merge("linear", ("/m/one",)).active(SIZE) == 1.0


def test_costs_are_relative_to_the_base(made: SimpleNamespace) -> None:
    campaign = made.campaign(costs=COSTS)
    known = References(base=made.outcome(0.1, cost=Cost(9.0, 4.0, 8, 80)))
    mine = made.outcome(0.1, cost=Cost(0.0, 4.0, 4, 20))
    assert relative_costs(campaign, mine, LARGER, known, SIZE) == (1.5, 0.5)
    assert relative_costs(campaign, mine, None, known, SIZE) == (1.0, 0.5)


def test_without_anything_to_compare_with_costs_are_equal(made: SimpleNamespace) -> None:
    campaign = made.campaign(costs=COSTS)
    mine = made.outcome(0.1)
    assert relative_costs(campaign, mine, None, References(), SIZE) == (1.0, 1.0)
    known = References(base=mine)
    assert relative_costs(campaign, made.outcome(0.1, cost=Cost()), None, known, SIZE)[1:] == (1,)
    assert tokens_per_item(made.outcome(0.1, cost=Cost(1.0, 1.0, 0, 1))) == 0.0


def test_equal_models_cost_the_same_however_long_they_took(made: SimpleNamespace) -> None:
    campaign = made.campaign(costs=COSTS)
    known = References(base=made.outcome(0.1, cost=Cost(1.0, 4.0, 8, 80)))
    slow, fast = (made.outcome(0.1, cost=Cost(1.0, seconds, 8, 96)) for seconds in (9.0, 3.0))
    assert relative_costs(campaign, slow, LARGER, known, SIZE) == relative_costs(
        campaign, fast, LARGER, known, SIZE
    )
