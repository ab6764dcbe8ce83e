from __future__ import annotations

import math

import numpy as np
import pytest
from optuna.distributions import FloatDistribution

from evomerge.search.samplers.cmaes import SIGMA, CmaEsSampler, is_separable, population_size
from evomerge.search.samplers.sampler import Measurement, Params, Problem

DIMENSIONS = 6
SPACE = {f"x{i}": FloatDistribution(-1.0, 1.0) for i in range(DIMENSIONS)}


def sampler(trials: int = 1000, seed: int = 0) -> CmaEsSampler:
    return CmaEsSampler(Problem(SPACE, ("maximize",), trials, seed))


def ask(cmaes: CmaEsSampler, number: int) -> dict[str, float]:
    params = cmaes.propose(number)
    cmaes.asked(number, params)
    return params


def lost(loss: float) -> Measurement:
    return Measurement((-loss,), loss)


def distance(params: Params) -> float:
    return math.sqrt(sum((value - 0.3) ** 2 for value in params.values()))


@pytest.mark.parametrize("best", [0.5, -0.5])
def test_it_starts_at_the_best_point_known(best: float) -> None:
    cmaes = sampler()
    for at in (-0.5, 0.0, 0.5):
        cmaes.known(dict.fromkeys(SPACE, at), lost(abs(at - best)))
    drawn = np.array([list(ask(cmaes, number).values()) for number in range(100)])
    scale = 2 * SIGMA  # the range is two long
    assert drawn.mean(axis=0) == pytest.approx(np.full(DIMENSIONS, best), abs=scale / 2)
    assert drawn.std() == pytest.approx(scale, rel=0.15)


def test_without_a_point_it_starts_in_the_middle() -> None:
    cmaes = sampler()
    drawn = np.array([list(ask(cmaes, number).values()) for number in range(100)])
    assert np.abs(drawn.mean(axis=0)).max() < 0.15


def test_a_problem_may_say_where_to_begin_while_no_point_is_known() -> None:
    cmaes = CmaEsSampler(Problem(SPACE, start=dict.fromkeys(SPACE, 0.6)), sigma=0.01)
    drawn = np.array([list(ask(cmaes, number).values()) for number in range(20)])
    assert drawn.mean(axis=0) == pytest.approx(np.full(DIMENSIONS, 0.6), abs=0.02)
    cmaes = CmaEsSampler(Problem(SPACE, start=dict.fromkeys(SPACE, 0.6)), sigma=0.01)
    cmaes.known(dict.fromkeys(SPACE, -0.5), lost(0.0))
    drawn = np.array([list(ask(cmaes, number).values()) for number in range(20)])
    assert drawn.mean(axis=0) == pytest.approx(np.full(DIMENSIONS, -0.5), abs=0.02)


def test_a_first_step_size_may_be_given() -> None:
    cmaes = CmaEsSampler(Problem(SPACE), sigma=0.01)
    drawn = np.array([list(ask(cmaes, number).values()) for number in range(100)])
    assert drawn.std() == pytest.approx(0.02, rel=0.15)


def test_a_draw_is_a_function_of_seed_number_and_attempt() -> None:
    assert sampler().propose(3) == sampler().propose(3)
    others = [sampler().propose(4), sampler().propose(3, 1), sampler(seed=1).propose(3)]
    assert all(other != sampler().propose(3) for other in others)


@pytest.mark.parametrize("trials", [60, 100_000])
@pytest.mark.parametrize("in_flight", [1, 7, 30])
def test_it_converges_however_late_results_come(trials: int, in_flight: int) -> None:
    cmaes = sampler(trials)
    assert cmaes._separable is (trials == 60)
    running = [(number, ask(cmaes, number)) for number in range(in_flight)]
    best = math.inf
    for number in range(in_flight, 600):
        done, params = running.pop(0)
        cmaes.told(done, params, lost(distance(params)))
        best = min(best, distance(params))
        running.append((number, ask(cmaes, number)))
    assert best < 0.1  # from 0.73 in the middle


def test_every_result_moves_the_distribution_once() -> None:
    cmaes = sampler()
    size = population_size(DIMENSIONS)
    trials = [ask(cmaes, number) for number in range(3 * size)]  # all before the first tell
    for count, params in enumerate(trials, start=1):
        cmaes.told(count - 1, params, lost(distance(params)))
        assert cmaes._optimizer is not None
        assert cmaes._optimizer.generation == count // size
        assert len(cmaes._told) == count % size


def test_replayed_calls_rebuild_it() -> None:
    cmaes, again = sampler(), sampler()
    for number in range(50):
        params = ask(cmaes, number)
        cmaes.told(number, params, lost(distance(params)))
        again.asked(number, params)  # nothing was proposed
        again.told(number, params, lost(distance(params)))
    assert again.propose(50) == cmaes.propose(50)


def test_a_failed_trial_moves_nothing() -> None:
    cmaes = sampler()
    for number in range(30):
        cmaes.told(number, ask(cmaes, number), None)
    assert cmaes._optimizer is not None
    assert cmaes._optimizer.generation == 0


def test_it_starts_again_at_the_best_when_it_cannot_go_on() -> None:
    cmaes = sampler()
    first = ask(cmaes, 0)
    cmaes.told(0, first, lost(-2.0))
    began = cmaes._optimizer
    for number in range(1, 2000):  # a plateau, apart from one point
        cmaes.told(number, ask(cmaes, number), lost(-1.0))
        if cmaes._optimizer is not began:
            break
    assert cmaes._optimizer is not None
    assert cmaes._optimizer.generation == 0
    drawn = np.array([list(cmaes.propose(n).values()) for n in range(2000, 2100)])
    middle = np.clip(drawn, -1, 1).mean(axis=0)
    assert middle == pytest.approx(np.array(list(first.values())), abs=SIGMA)


def test_all_draws_lie_in_their_ranges_also_from_a_corner() -> None:
    cmaes = sampler()
    cmaes.known(dict.fromkeys(SPACE, 1.0), lost(0.0))
    on_border = 0
    for number in range(50):
        values = list(ask(cmaes, number).values())
        assert all(-1.0 <= value <= 1.0 for value in values)
        on_border += sum(value == 1.0 for value in values)
    assert on_border > 50


def test_one_dimension_works() -> None:
    cmaes = CmaEsSampler(Problem({"x": FloatDistribution(0.0, 1.0)}, trials=50))
    best = math.inf
    for number in range(50):
        params = ask(cmaes, number)
        best = min(best, abs(params["x"] - 0.9))
        cmaes.told(number, params, lost(abs(params["x"] - 0.9)))
    assert best < 0.02


def test_the_rules() -> None:
    assert [population_size(n) for n in (1, 10, 40, 120)] == [4, 10, 15, 18]
    assert is_separable(40, 200)
    assert not is_separable(40, 700)
    assert not is_separable(1, 1)
