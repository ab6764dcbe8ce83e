"""Descents of several methods as one sequence of steps."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from evomerge.search.bandit import Bandit
from evomerge.search.samplers.gradient import MOST_PATHS
from evomerge.space import Choices

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
