from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from evomerge.candidate.trial import Cost, Outcome
from evomerge.objective import Objectives
from evomerge.report.estimates import estimated_scores
from evomerge.report.summary import goals_of
from evomerge.store import Store


@pytest.fixture
def part(lab: SimpleNamespace) -> Outcome:
    """Three tasks, two items of each."""
    scores = {task: lab.task_scores([1.0, 1.0]) for task in lab.tasks}
    return Outcome(scores, cost=Cost(0.1, 1.0, 6, 12))


def test_the_estimate_is_shown_not_the_mean_of_some_items(
    make_store: Callable[..., Store], lab: SimpleNamespace, part: Outcome
) -> None:
    campaign = make_store().campaign
    goals = goals_of(campaign, lab.facts)
    found = estimated_scores(Objectives(campaign), goals, (0.4,), part)
    assert found.objective is not None
    assert (found.objective.value, found.objective.low, found.objective.n) == (0.4, None, 6)
    assert (found.searched, found.tasks, found.net) == (None, {}, None)
    assert found.estimated


def test_what_was_searched_is_no_estimate_of_what_is_reported(
    make_store: Callable[..., Store], lab: SimpleNamespace, part: Outcome
) -> None:
    campaign = make_store().campaign
    goals = [replace(goal, report="f1") for goal in goals_of(campaign, lab.facts)]
    found = estimated_scores(Objectives(campaign), goals, (0.4,), part)
    assert found.objective is None
    assert found.searched is not None
    assert found.searched.value == 0.4


def test_costs_go_back_on_the_mean(
    make_store: Callable[..., Store], lab: SimpleNamespace, part: Outcome
) -> None:
    campaign = make_store(costs=[{"cost": "parameters", "weight": 0.25}]).campaign
    found = estimated_scores(Objectives(campaign), goals_of(campaign, lab.facts), (0.4,), part)
    assert found.objective is not None
    assert found.objective.value == pytest.approx(0.65)
    assert found.net == 0.4
    assert found.costs == {"parameters": 1.0}


def test_of_a_front_every_objective_is_estimated(
    make_store: Callable[..., Store], lab: SimpleNamespace, part: Outcome
) -> None:
    campaign = make_store(mode="pareto").campaign
    goals = goals_of(campaign, lab.facts)
    found = estimated_scores(Objectives(campaign), goals, (0.1, 0.2, 0.6), part)
    assert [found.tasks[task]["exact_match"].value for task in lab.tasks] == [0.1, 0.2, 0.6]
    assert found.objective is not None
    assert found.objective.value == pytest.approx(0.3)
