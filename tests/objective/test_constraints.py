from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.candidate.trial import Estimate, Outcome, TaskScores
from evomerge.config import Keep
from evomerge.objective.constraints import (
    feasible,
    limit,
    limits,
    shortfall,
    total_violation,
    violations,
)
from evomerge.objective.references import References

KEEP = [
    {"task": "exam", "at_least": 0.9},
    {"task": "text", "at_least": 0.5, "of": "base"},
]


def test_shortfalls_are_relative_to_what_is_asked_for(made: SimpleNamespace) -> None:
    campaign = made.campaign(keep=KEEP)
    known = References(base=made.outcome(0.1, 10.0), experts={"one": made.outcome(0.5)})
    assert limits(campaign, known, "search") == (pytest.approx(0.45), 20.0)
    assert violations(campaign, made.outcome(0.9, 30.0), known) == pytest.approx((-1.0, 0.5))
    assert violations(campaign, made.outcome(0.0, 20.0), known) == pytest.approx((1.0, 0.0))


def test_no_constraints_no_violations(made: SimpleNamespace) -> None:
    assert violations(made.campaign(), made.outcome(0.0), References()) == ()


def test_on_select_the_reported_metric_is_kept(made: SimpleNamespace) -> None:
    objectives = [{"task": "exam", "metric": "gold_loglikelihood", "report": "acc"}]
    campaign = made.campaign(objectives=objectives, keep=KEEP[:1])
    both = {"acc": Estimate(0.5), "gold_loglikelihood": Estimate(-1.0)}
    known = References(experts={"one": Outcome({"exam": TaskScores(("a",), {}, both)})})
    found = {"acc": Estimate(0.9), "gold_loglikelihood": Estimate(-2.0)}
    mine = Outcome({"exam": TaskScores(("a",), {}, found)})
    assert violations(campaign, mine, known, "search") == (pytest.approx(1 + math.log(0.9)),)
    assert feasible(violations(campaign, mine, known, "select"))


def test_a_part_of_the_items_is_held_to_the_reference_on_that_part(made: SimpleNamespace) -> None:
    campaign = made.campaign(keep=[{"task": "exam", "at_least": 1.0}])
    whole = TaskScores(("a", "b"), {"acc": (1.0, 0.0)}, {"acc": Estimate(0.5)})
    known = References(experts={"one": Outcome({"exam": whole})})
    part = TaskScores(("b",), {"acc": (0.0,)}, {"acc": Estimate(0.0)})
    assert violations(campaign, Outcome({"exam": part}), known) == (0.0,)


def test_what_is_missing(made: SimpleNamespace) -> None:
    campaign = made.campaign(keep=KEEP[:1])
    known = References(experts={"one": made.outcome(0.5)})
    assert violations(campaign, Outcome(), known) == (math.inf,)
    assert violations(campaign, made.outcome(math.nan), known) == (math.inf,)
    nan = References(experts={"one": made.outcome(math.nan)})
    for unknown in (References(), nan, replace(known, unscored=frozenset({"expert"}))):
        assert violations(campaign, made.outcome(1.0), unknown) == (math.inf,)
        assert limits(campaign, unknown, "search") == (None,)
    other = replace(known, unscored=frozenset({"baseline"}))
    assert feasible(violations(campaign, made.outcome(1.0), other))


@given(
    st.floats(-10, 10),
    st.floats(0.5, 1.0),
    st.booleans(),
    st.sampled_from(["m", "gold_loglikelihood"]),
)
def test_a_share_below_one_is_never_harder_than_the_reference(
    best: float, share: float, higher: bool, metric: str
) -> None:
    higher = higher or metric != "m"
    keep = Keep(task="t", at_least=share)
    needed = limit(best, keep, metric, higher=higher)
    assert needed <= best if higher else needed >= best
    assert shortfall(best, needed, metric, higher=higher) <= 0
    worse = needed - 1 if higher else needed + 1
    assert shortfall(worse, needed, metric, higher=higher) > 0


def test_what_counts_is_what_is_missing() -> None:
    assert feasible(())
    assert feasible((0.0, -1.0))
    assert not feasible((0.1, -1.0))
    assert total_violation((0.25, -1.0, 0.5)) == 0.75
    assert total_violation((-1.0,)) == 0.0


def test_a_cost_may_be_so_many_times_the_bases(made: SimpleNamespace) -> None:
    asked = [{"cost": "parameters", "at_most": 2.0}, {"cost": "generated_tokens", "at_most": 1.0}]
    campaign = made.campaign(keep=[*asked, KEEP[0]])
    known = References(base=made.outcome(0.1), experts={"one": made.outcome(0.5)})
    found = violations(
        campaign,
        made.outcome(0.9),
        known,
        costs={"parameters": 3.0, "generated_tokens": 1.0},
    )
    assert found == pytest.approx((0.5, 0.0, -1.0))
    assert limits(campaign, known, "search") == (2.0, 1.0, pytest.approx(0.45))
