"""Descents of several methods as one sequence of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np

from evomerge.config import SpaceSettings
from evomerge.merge.methods import METHODS as METHODS_BY_NAME
from evomerge.search.bandit import Bandit
from evomerge.search.samplers import SAMPLERS, Measurement, Problem, Sampler
from evomerge.search.samplers.gradient import MOST_PATHS
from evomerge.space import Choices, Family
from evomerge.space.several import SeveralSpaces
from evomerge.space.space import Space

METHODS = ("task_arithmetic", "ties", "dare_linear")


def first_methods(choices: ModuleType, settings: object) -> dict[int, str]:
    """Return the method of each descent, in the order in which they began."""
    sampler, space = choices.opened(settings)
    assert isinstance(sampler, Bandit)
    begun: dict[int, str] = {}
    for number in range(60):
        while (step := sampler.next_step()) is not None:
            begun.setdefault(step.descent, Choices(space).at(step.params).arm)
            sampler.step_asked(step)
            sampler.step_told(step.descent, choices.gradient_at(space, step.params))
        params = sampler.propose(number)
        sampler.asked(number, params)
        sampler.told(number, params, choices.result_at(space, params))
    return begun


def test_each_method_has_a_descent_before_any_has_two(choices: ModuleType, tmp_path: Path) -> None:
    begun = first_methods(choices, choices.campaign(tmp_path, "gradient", 60))
    assert list(begun) == list(range(len(begun)))
    assert set(list(begun.values())[:3]) == set(METHODS)
    assert begun[0] == "task_arithmetic"  # the naive merges are its
    assert len(begun) > 3  # with 60 trials those that may still win have another one


def test_a_method_without_gradients_is_searched_by_points(
    choices: ModuleType, tmp_path: Path
) -> None:
    fixed = {
        "method": ["task_arithmetic", "fixed"],
        "parameters": {"weight": {"low": 0, "high": 1.2}},
    }
    settings = choices.campaign(tmp_path, "gradient", 60, fixed)
    assert set(first_methods(choices, settings).values()) == {"task_arithmetic"}
    points, space = choices.search(settings)
    assert choices.methods_of(points, space)["fixed"] == 1  # it has one point


def test_the_next_method_begins_at_what_the_last_one_found(
    choices: ModuleType, tmp_path: Path
) -> None:
    points, space = choices.search(choices.campaign(tmp_path, "gradient", 60))
    of_ties = [point for point in points if Choices(space).at(point).arm == "ties"]
    before = points[: points.index(of_ties[0])]
    best = max(before, key=lambda point: choices.value_at(space, point))
    assert [of_ties[0][f"weight/{e}"] for e in "abc"] == [best[f"weight/{e}"] for e in "abc"]
    assert of_ties[0]["density"] == 1.0  # its default


def test_idle_workers_follow_further_descents_up_to_a_limit(
    choices: ModuleType, tmp_path: Path
) -> None:
    settings = choices.campaign(tmp_path, "gradient", 60)
    sampler, _ = choices.opened(settings)
    running = []
    for number in range(40):
        step = sampler.next_step()
        if step is not None:
            sampler.step_asked(step)
            running.append(step)
        else:
            sampler.asked(number, sampler.propose(number))
    assert 1 <= len(running) <= MOST_PATHS
    assert len({step.descent for step in running}) == len(running)


def test_coefficients_stay_in_the_space_they_were_learnt_in(tmp_path: Path) -> None:
    """The second of two spaces begins at its own point, which has nothing of the first one's descent."""
    family = Family("base", {"a": "one", "b": "two"}, 4, "float32")

    def of(method: str) -> Space:
        settings = {"method": method, "parameters": {"weight": {"low": 0.0, "high": 1.2}}}
        return Space.build(SpaceSettings.model_validate(settings), family, METHODS_BY_NAME)

    space = SeveralSpaces({"merge1": of("task_arithmetic"), "merge2": of("ties")})
    problem = Problem(
        space.distributions,
        ("maximize",),
        60,
        0,
        space.differentiable,
        {"t": 8},
        {"t": 1.0},
        scales=("group", "tensor", "row"),
        arms=2,
    )

    def build(start: Mapping[str, float], differentiable: Sequence[str]) -> Sampler:
        own = {name: space.distributions[name] for name in start}
        return SAMPLERS["gradient"](
            replace(problem, distributions=own, differentiable=tuple(differentiable), start=start)
        )

    bandit = Bandit(space.regions, build, 60, lambda outcome: None)
    for row in space.baselines():
        for point in (*([row.params] if row.params else []), *row.also_at):
            bandit.known(point, Measurement((0.3,), -0.3))
    with_coefficients = set()
    for number in range(60):
        while (step := bandit.next_step()) is not None:
            bandit.step_asked(step)
            gradient = {name: float(name.startswith("merge1/")) for name in space.differentiable}
            bandit.step_told(step.descent, gradient, {"t.weight": np.ones((2, 3), np.float32)})
        params = bandit.propose(number)
        coefficients = bandit.coefficients(params)
        if space.regions.at(params).arm.startswith("merge2"):
            assert with_coefficients == {True}
            assert coefficients is None
            return
        with_coefficients.add(coefficients is not None)
        bandit.asked(number, params)
        value = 0.5 + number / 100
        bandit.told(number, params, Measurement((value,), -value, coefficients=coefficients))
    raise AssertionError("the second space was never tried")
