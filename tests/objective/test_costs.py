from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from evomerge.candidate import Candidate, Merge
from evomerge.candidate.trial import Cost
from evomerge.objective.costs import Size, relative_costs, tokens_per_item
from evomerge.objective.references import References

SIZE = Size((10, 10, 20), 20)
COSTS = [{"cost": cost} for cost in ("parameters", "generated_tokens")]


def larger(layers: tuple[int, ...], rest: int) -> float:
    return (sum(layers) + sum(layers[1:]) + rest) / (sum(layers) + rest)


LARGER = cast(Candidate, SimpleNamespace(size=larger))


def test_weights_are_counted_by_layer() -> None:
    weights = {"embed": 15, "layers.0.a": 4, "layers.0.b": 6, "layers.1.a": 10, "head": 5}
    layer = {"layers.0.a": 0, "layers.0.b": 0, "layers.1.a": 1}
    size = Size.count(weights, layer.get)
    assert size == Size((10, 10), 20)
    assert Size.from_json(size.to_json()) == size
    assert Size.from_json(None) == Size()


def test_a_merge_is_as_large_as_the_base() -> None:
    assert Merge("linear", ("/m/one",)).size(SIZE.layers, SIZE.rest) == 1.0


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
