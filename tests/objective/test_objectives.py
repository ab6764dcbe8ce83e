from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from evomerge.candidate import Size
from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import Failure, FailureKind, Outcome
from evomerge.errors import CampaignError
from evomerge.objective.constraints import feasible
from evomerge.objective.objectives import Objectives
from evomerge.objective.references import References

BOTH = [{"cost": "parameters", "weight": 0.5}, {"cost": "generated_tokens", "weight": 0.1}]


def known(made: SimpleNamespace, best: float = 0.8) -> References:
    return References(
        base=made.outcome(0.1, 10.0), experts={"one": made.outcome(best, 4.0)}, baselines={}
    )


def test_the_mean_is_weighted_and_counts_a_loss_negatively(made: SimpleNamespace) -> None:
    aims = Objectives(made.campaign())
    assert aims.directions == ("maximize",)
    assert aims.values(made.outcome(0.5, 2.0)) == ((3 * 0.5 - 2.0) / 4,)


def test_a_front_keeps_values_and_directions_and_has_one_more_for_each_cost(
    made: SimpleNamespace,
) -> None:
    aims = Objectives(made.campaign(mode="pareto", costs=BOTH), known(made))
    assert aims.directions == ("maximize", "minimize", "minimize", "minimize")
    mine = made.outcome(0.5, 2.0, Cost(items=4, generated_tokens=80))
    assert aims.values(mine) == (0.5, 2.0, 1.0, 2.0)
    assert aims.mean((0.5, 2.0, 1.0, 2.0)) == (3 * 0.5 - 2.0) / 4


def test_values_as_shares_of_the_best_experts(made: SimpleNamespace) -> None:
    aims = Objectives(made.campaign(normalize="best_expert"), known(made))
    aims.check()
    assert aims.values(made.outcome(0.4, 8.0)) == ((3 * 0.5 + 0.5) / 4,)
    assert aims.values(made.outcome(0.8, 4.0)) == (1.0,)


def test_in_pareto_mode_shares_order_what_no_front_orders(made: SimpleNamespace) -> None:
    aims = Objectives(made.campaign(normalize="best_expert", mode="pareto"), known(made))
    assert aims.values(made.outcome(0.4, 8.0)) == (0.4, 8.0)
    assert aims.mean((0.4, 8.0)) == 0.5


@pytest.mark.parametrize(("best", "found"), [(0.0, "has 0"), (-0.3, "has -0.3")])
def test_nothing_can_be_divided_by_an_expert_without_a_score(
    made: SimpleNamespace, best: float, found: str
) -> None:
    aims = Objectives(made.campaign(normalize="best_expert"), known(made, best))
    with pytest.raises(
        CampaignError, match=f'^normalize: .*{found} of acc on "exam".*normalize: none'
    ):
        aims.check()
    assert aims.values(made.outcome(0.4, 8.0)) == ((3 * 0.4 + 0.5) / 4,)  # undivided


def test_nobody_to_compare_with_is_an_error_before_the_search(made: SimpleNamespace) -> None:
    with pytest.raises(CampaignError, match="no expert has a value of acc"):
        Objectives(made.campaign(normalize="best_expert")).check()
    keep = [{"task": "exam", "at_least": 1.0, "of": "best_baseline"}]
    with pytest.raises(CampaignError, match=r"^keep\.0\.of: best_baseline has no acc"):
        Objectives(made.campaign(keep=keep), known(made)).check()
    with pytest.raises(CampaignError, match=r"^costs\.1\.cost: .*could not be scored"):
        Objectives(made.campaign(costs=BOTH)).check()


def test_what_the_base_does_not_spend_is_no_cost(made: SimpleNamespace) -> None:
    base = made.outcome(0.1, cost=Cost(1.0, 1.0, 4, 0))
    with pytest.raises(CampaignError, match=r"the base spent none.*a metric that generates"):
        Objectives(made.campaign(costs=BOTH), References(base=base)).check()


def test_costs_come_off_the_mean(made: SimpleNamespace) -> None:
    twice: Any = SimpleNamespace(size=lambda base: 2.0)
    aims = Objectives(made.campaign(costs=BOTH), known(made), size=Size((5, 5)))
    mine = made.outcome(0.5, 2.0, Cost(items=4, generated_tokens=80))
    (value,) = aims.values(mine, twice)
    assert value == pytest.approx((3 * 0.5 - 2.0) / 4 - 0.5 * 2 - 0.1 * 2)


def test_constraints_come_before_values(made: SimpleNamespace) -> None:
    aims = Objectives(made.campaign(keep=[{"task": "exam", "at_least": 0.5}]), known(made))
    rows = [made.outcome(*row) for row in ((0.1, 1.0), (0.3, 1.0), (0.5, 9.0), (0.5, 8.0))]
    ordered = aims.order([aims.values(row) for row in rows], [aims.violations(row) for row in rows])
    assert ordered == [(3, 0), (2, 1), (1, 2), (0, 3)]


def test_what_nobody_can_tell_orders_nothing(made: SimpleNamespace) -> None:
    """The base failed: its constraint is met by none, and the other one decides."""
    keep = [{"task": "exam", "at_least": 0.5, "of": "base"}, {"task": "exam", "at_least": 0.5}]
    experts = {"one": made.outcome(0.9)}
    aims = Objectives(made.campaign(keep=keep), References(experts=experts))
    rows = [made.outcome(*row) for row in ((0.1, 1.0), (0.5, 9.0), (0.5, 8.0))]
    violations = [aims.violations(row) for row in rows]
    assert not any(feasible(one) for one in violations)
    assert [row for row, _ in aims.order([aims.values(r) for r in rows], violations)] == [2, 1, 0]


def test_a_front_is_ordered_by_mean(made: SimpleNamespace) -> None:
    aims = Objectives(made.campaign(mode="pareto"))
    values = [(0.2, 1.0), (0.9, 2.0), (0.8, 3.0)]
    assert aims.order(values, [(), (), ()]) == [(1, 0), (0, 0), (2, 1)]


@pytest.mark.parametrize(
    "outcome",
    [Outcome(failure=Failure(FailureKind.MERGE, "no")), Outcome()],
    ids=["failed", "missing"],
)
def test_what_has_no_value_is_behind_everything(made: SimpleNamespace, outcome: Outcome) -> None:
    aims = Objectives(made.campaign())
    assert aims.quality(outcome) == aims.quality(made.outcome(math.nan)) == -math.inf
    assert aims.quality(made.outcome(0.5, 2.0)) == (3 * 0.5 - 2.0) / 4


def test_it_is_set_up_from_what_a_store_holds(made: SimpleNamespace) -> None:
    facts = {
        "higher_is_better": {"text": {"word_perplexity": True}},
        "size": {"layers": [1, 2], "rest": 3},
    }
    rows = [
        made.evaluation("base", "base", made.outcome(0.2)),
        made.evaluation("base", "base", made.outcome(0.6), "select"),
    ]
    aims = Objectives.of(made.campaign(mode="pareto"), facts, rows, "select")
    assert aims.directions == ("maximize", "maximize")
    assert aims.size == Size((1, 2), 3)
    assert aims.references.base == made.outcome(0.6)


def test_a_tradeoff_has_the_mean_and_each_cost(made: SimpleNamespace) -> None:
    twice: Any = SimpleNamespace(size=lambda base: 2.0, active=lambda base: 1.5)
    costs = [{"cost": "active_parameters"}, {"cost": "parameters"}]
    aims = Objectives(made.campaign(costs=costs, mode="tradeoff"), known(made), size=Size((5, 5)))
    assert aims.directions == ("maximize", "minimize", "minimize")
    mine = made.outcome(0.5, 2.0)
    values = aims.values(mine, twice)
    assert values == (aims.quality(mine), 1.5, 2.0)
    assert aims.mean(values) == values[0]
    cheap = aims.values(made.outcome(0.4, 2.0))
    worse = aims.values(made.outcome(0.4, 2.0), twice)
    assert [front for _, front in aims.order([values, cheap, worse], [(), (), ()])] == [0, 0, 1]


def test_constraints_are_on_costs_too(made: SimpleNamespace) -> None:
    twice: Any = SimpleNamespace(size=lambda base: 2.0, active=lambda base: 1.5)
    keep = [{"cost": "parameters", "at_most": 1.6}, {"cost": "active_parameters", "at_most": 1.6}]
    aims = Objectives(made.campaign(keep=keep), known(made), size=Size((5, 5)))
    assert aims.violations(made.outcome(0.5), twice) == pytest.approx((0.25, -0.0625))
    assert feasible(aims.violations(made.outcome(0.5)))
    assert aims.campaign.asked_costs == ("parameters", "active_parameters")
    aims.check()
    silent = References(base=made.outcome(0.1, cost=Cost(1.0, 1.0, 4, 0)))
    tokens = made.campaign(keep=[{"cost": "generated_tokens", "at_most": 2}])
    with pytest.raises(CampaignError, match="the base spent none") as refused:
        Objectives(tokens, silent).check()
    assert refused.value.field == "keep.0.cost"
