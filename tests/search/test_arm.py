"""One method with a subset of the experts: what it sees, what it takes over, what it remembers."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from evomerge.search.arm import Arm, arm_of
from evomerge.search.cmaes_sampler import CmaEsSampler
from evomerge.search.sampler import Result
from evomerge.space import Space, choice_of, first_choices


@pytest.fixture
def space(choices: ModuleType, tmp_path: Path) -> Space:
    found = choices.space_of(choices.campaign(tmp_path, "cmaes", 40))
    assert isinstance(found, Space)
    return found


@pytest.fixture
def arms(space: Space) -> list[Arm]:
    def build(distributions: Any, differentiable: Any) -> CmaEsSampler:
        return CmaEsSampler(distributions, 40, 0)

    return [Arm(space, choice, build, is_open=True) for choice in first_choices(space)]


def tell(arm: Arm, number: int, params: dict[str, float], loss: float, *, own: bool = True) -> None:
    arm.asked += 1
    if own:
        arm.asked_for(number, params)
    arm.tell(number, params, Result((-loss,), loss), own=own)


def test_its_points_are_points_of_the_whole_space(arms: list[Arm], space: Space) -> None:
    for arm in arms:
        point = arm.propose(3, 0)
        assert set(point) == set(space.distributions)
        assert choice_of(space, point) == arm.choice
        assert arm_of(space, arms, point) is arm
        assert arm.lift(arm.lower(point)) == point
    assert arm_of(space, arms[1:], arms[0].propose(3, 0)) is None


def test_it_remembers_the_best_after_every_trial(arms: list[Arm]) -> None:
    arm = arms[0]
    assert (arm.best, arm.loss, arm.told) == (None, float("inf"), 0)
    arm.know(arm.propose(0, 0), Result((0.0,), 5.0))
    for number, loss in enumerate((7.0, 3.0, 4.0)):
        tell(arm, number, arm.propose(number, 0), loss)
    arm.tell(9, arm.propose(9, 0), None, own=True)  # it failed
    assert [best.result.loss for best in arm.bests if best] == [5.0, 5.0, 3.0, 3.0, 3.0]
    arm.inherited = 2
    assert arm.effort == 6
    assert [best.result.loss for best in map(arm.after, (1, 2, 3, 4, 6)) if best] == [
        5.0, 5.0, 5.0, 3.0, 3.0,
    ]  # fmt: skip


def test_it_takes_over_the_leaders_point_once(arms: list[Arm], space: Space) -> None:
    leader, arm, _ = arms
    assert arm.taken_over(leader) is None  # nothing is known
    tell(leader, 0, leader.propose(0, 0), 1.0)
    point = arm.taken_over(leader)
    assert point is not None
    assert leader.best is not None
    assert [point[f"weight/{e}"] for e in "abc"] == [
        leader.best.params[f"weight/{e}"] for e in "abc"
    ]
    assert choice_of(space, point) == arm.choice
    assert leader.taken_over(leader) is None
    arm.take_over(leader)
    assert arm.taken_over(leader) is None
    tell(leader, 1, leader.propose(1, 0), 0.5)
    assert arm.taken_over(leader) is not None  # news


def test_a_point_taken_over_that_is_best_is_where_its_sampler_goes_on(arms: list[Arm]) -> None:
    leader, arm, _ = arms
    for number in range(3):
        tell(arm, number, arm.propose(number, 0), 2.0 + number)
    tell(leader, 3, {**leader.propose(3, 0), "weight/a": 1.1, "weight/b": 1.1}, 1.0)
    point = arm.taken_over(leader)
    assert point is not None
    arm.asked += 1
    arm.tell(4, point, Result((-0.5,), 0.5), own=False)
    assert abs(arm.propose(5, 0)["weight/a"] - 1.1) < 0.3


def test_without_dimensions_it_has_one_point(choices: ModuleType, tmp_path: Path) -> None:
    def build(distributions: Any, differentiable: Any) -> CmaEsSampler:
        raise AssertionError("there is nothing to search")

    settings = {"method": ["task_arithmetic", "fixed"]}
    space = choices.space_of(choices.campaign(tmp_path, "cmaes", 40, settings))
    arm = Arm(space, first_choices(space)[1], build, is_open=True)
    assert (arm.names, arm.is_over) == ((), False)
    tell(arm, 0, arm.propose(0, 0), 1.0)
    assert arm.is_over
    assert arm.propose(1, 0) == arm.propose(2, 1)
