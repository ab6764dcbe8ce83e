"""What holds for every sampler."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from optuna.distributions import FloatDistribution

from evomerge.objective import Direction
from evomerge.search.samplers import SAMPLERS, Measurement, Params, Problem, Sampler

BuildSampler = Callable[[Problem], Sampler]
Call = tuple[str, tuple[Any, ...], Any]
"""Method of a sampler, its arguments, its answer."""

BEST = {"a": 0.3, "b": 0.9, "c": -0.2, "log": 0.1}
PROBLEM = Problem(
    distributions={
        "a": FloatDistribution(0.0, 1.2),
        "b": FloatDistribution(0.0, 1.2),
        "c": FloatDistribution(-1.0, 1.0),
        "log": FloatDistribution(0.01, 1.0, log=True),
    },
    trials=60,
    seed=3,
    differentiable=("a", "b"),
    gold={"task": 40},
    weights={"task": 1.0},
)
"""Four dimensions, two of which have a gradient."""
DIRECTIONS: tuple[Direction, ...] = ("maximize", "maximize")


def result_at(params: Params, values: int = 1) -> Measurement:
    """Return the result at a point: less the squared distance from `BEST`."""
    loss = sum((params[name] - best) ** 2 for name, best in BEST.items())
    return Measurement((-loss, -params["a"])[:values], loss)


def play(sampler: Sampler, trials: int, *, workers: int = 3, values: int = 1) -> list[Call]:
    """Search with several workers that answer in random order, one of seven trials failing.

    Returns:
        Every call in its order.
    """
    calls: list[Call] = []
    chance = random.Random(0)
    running: list[tuple[str, int, dict[str, float]]] = []

    def call(name: str, *arguments: Any) -> Any:  # noqa: ANN401 - as the method has it
        answer = getattr(sampler, name)(*arguments)
        calls.append((name, arguments, answer))
        return answer

    call("known", dict.fromkeys(BEST, 0.5), result_at(dict.fromkeys(BEST, 0.5), values))
    number = 0
    while number < trials or running:
        while number < trials and len(running) < workers:
            step = call("next_step")
            if step is not None:
                call("step_asked", step)
                running.append(("step", step.descent, dict(step.params)))
                continue
            params = call("propose", number)
            call("asked", number, params)
            running.append(("trial", number, params))
            number += 1
        what, which, params = running.pop(chance.randrange(len(running)))
        if what == "trial":
            call("told", which, params, None if which % 7 == 6 else result_at(params, values))
        else:
            gradient = {name: 2 * (params[name] - BEST[name]) for name in PROBLEM.differentiable}
            call("step_told", which, gradient)
    return calls


def proposals(calls: list[Call]) -> list[dict[str, float]]:
    """Return the points that were proposed."""
    return [answer for name, _, answer in calls if name == "propose"]


class SamplerSuite:
    """Tests of a sampler. Override `build`: its class, or another function from a problem to a sampler."""

    @pytest.fixture
    def build(self) -> BuildSampler:
        """Return what opens a sampler."""
        pytest.fail("override the fixture `build`")

    def test_proposals_lie_inside_the_distributions(self, build: BuildSampler) -> None:
        for params in proposals(play(build(PROBLEM), 15)):
            assert set(params) == set(PROBLEM.distributions)
            for name, distribution in PROBLEM.distributions.items():
                assert distribution.low <= params[name] <= distribution.high

    def test_it_is_deterministic(self, build: BuildSampler) -> None:
        assert play(build(PROBLEM), 15) == play(build(PROBLEM), 15)

    def test_proposing_again_changes_nothing(self, build: BuildSampler) -> None:
        sampler = build(PROBLEM)
        assert sampler.propose(0) == sampler.propose(0)
        sampler.propose(0, 1)
        assert sampler.propose(0) == build(PROBLEM).propose(0)

    def test_trials_are_told_apart(self, build: BuildSampler) -> None:
        points = proposals(play(build(PROBLEM), 15, workers=1))
        assert len({tuple(sorted(point.items())) for point in points}) >= 12

    @pytest.mark.parametrize("values", [1, 2])
    def test_replayed_calls_rebuild_it(self, build: BuildSampler, values: int) -> None:
        """Whatever was running: `propose` and `next_step` are not repeated, the others are."""
        problem = replace(PROBLEM, directions=DIRECTIONS[:values])
        sampler = build(problem)
        if values > 1 and not sampler.several_objectives:
            pytest.skip("it searches for one value")
        calls = play(sampler, 20, values=values)
        for cut in (30, len(calls)):
            again = build(problem)
            for name, arguments, _ in calls[:cut]:
                if name not in ("propose", "next_step"):
                    getattr(again, name)(*arguments)
            for name, arguments, answer in calls[cut:]:
                assert getattr(again, name)(*arguments) == answer
            assert again.next_step() == sampler.next_step()
            assert again.propose(20) == sampler.propose(20)

    def test_more_trials_leave_its_history_as_it_was(self, build: BuildSampler) -> None:
        assert play(build(PROBLEM), 20)[:40] == play(build(PROBLEM), 15)[:40]

    def test_it_takes_points_that_it_did_not_propose(self, build: BuildSampler) -> None:
        sampler = build(PROBLEM)
        given = dict.fromkeys(BEST, 0.4)
        sampler.asked(0, given)
        sampler.told(0, given, result_at(given))
        assert set(sampler.propose(1)) == set(BEST)

    def test_one_that_learns_beats_random_draws(self, build: BuildSampler) -> None:
        sampler = build(PROBLEM)
        if not sampler.learns:
            pytest.skip("it does not learn")
        learnt, drawn = (
            [result_at(params).loss for params in proposals(play(one, 45, workers=1))]
            for one in (sampler, SAMPLERS["random"](PROBLEM))
        )
        assert sum(learnt[-15:]) < sum(drawn[-15:])
