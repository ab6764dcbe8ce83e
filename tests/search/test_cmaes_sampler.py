from __future__ import annotations

import math

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from evomerge.search.cmaes_sampler import SIGMA, CmaEsSampler, is_separable, population_size

DIMENSIONS = 6
SPACE = {f"x{i}": FloatDistribution(-1.0, 1.0) for i in range(DIMENSIONS)}


def study_with(sampler: CmaEsSampler, direction: str = "maximize") -> optuna.Study:
    return optuna.create_study(direction=direction, sampler=sampler)


def add_point(study: optuna.Study, at: float, value: float) -> None:
    study.add_trial(
        create_trial(params=dict.fromkeys(SPACE, at), distributions=SPACE, values=[value])
    )


def ask(study: optuna.Study, sampler: CmaEsSampler, seed: int) -> optuna.Trial:
    sampler.reseed(seed)
    return study.ask(fixed_distributions=SPACE)


def distance(params: dict[str, float]) -> float:
    return math.sqrt(sum((value - 0.3) ** 2 for value in params.values()))


@pytest.mark.parametrize(("direction", "best"), [("maximize", 0.5), ("minimize", -0.5)])
def test_it_starts_at_the_best_point_told(direction: str, best: float) -> None:
    sampler = CmaEsSampler(SPACE, trials=1000)
    study = study_with(sampler, direction)
    for at in (-0.5, 0.0, 0.5):
        add_point(study, at, value=at)
    drawn = np.array([list(ask(study, sampler, seed).params.values()) for seed in range(100)])
    scale = 2 * SIGMA  # the range is two long
    assert drawn.mean(axis=0) == pytest.approx(np.full(DIMENSIONS, best), abs=scale / 2)
    assert drawn.std() == pytest.approx(scale, rel=0.15)


def test_without_a_point_it_starts_in_the_middle() -> None:
    sampler = CmaEsSampler(SPACE, trials=1000)
    study = study_with(sampler)
    drawn = np.array([list(ask(study, sampler, seed).params.values()) for seed in range(100)])
    assert np.abs(drawn.mean(axis=0)).max() < 0.15


@pytest.mark.parametrize("trials", [60, 100_000])
@pytest.mark.parametrize("in_flight", [1, 7, 30])
def test_it_converges_however_late_results_come(trials: int, in_flight: int) -> None:
    sampler = CmaEsSampler(SPACE, trials=trials)
    assert sampler._separable is (trials == 60)
    study = study_with(sampler, "minimize")
    flying = [ask(study, sampler, seed) for seed in range(in_flight)]
    for seed in range(in_flight, 600):
        done = flying.pop(0)
        study.tell(done, distance(done.params))
        flying.append(ask(study, sampler, seed))
    assert study.best_value < 0.05  # from 0.73 in the middle


def test_every_result_moves_the_distribution_once() -> None:
    sampler = CmaEsSampler(SPACE, trials=1000)
    study = study_with(sampler)
    size = population_size(DIMENSIONS)
    trials = [ask(study, sampler, seed) for seed in range(3 * size)]  # all before the first tell
    for count, trial in enumerate(trials, start=1):
        study.tell(trial, -distance(trial.params))
        assert sampler._optimizer is not None
        assert sampler._optimizer.generation == count // size
        assert len(sampler._told) == count % size


def test_a_failed_trial_moves_nothing() -> None:
    sampler = CmaEsSampler(SPACE, trials=1000)
    study = study_with(sampler)
    for seed in range(30):
        study.tell(ask(study, sampler, seed), state=TrialState.FAIL)
    assert sampler._optimizer is not None
    assert sampler._optimizer.generation == 0


def test_it_starts_again_at_the_best_when_it_cannot_go_on() -> None:
    sampler = CmaEsSampler(SPACE, trials=1000)
    study = study_with(sampler)
    for seed in range(2000):
        trial = ask(study, sampler, seed)
        study.tell(trial, 1.0 if seed else 2.0)  # a plateau, apart from one point
    assert sampler._optimizer is not None
    assert sampler._optimizer.generation < 2000 // population_size(DIMENSIONS)
    assert study.best_value == 2.0


def test_all_draws_lie_in_their_ranges_also_from_a_corner() -> None:
    sampler = CmaEsSampler(SPACE, trials=1000)
    study = study_with(sampler)
    add_point(study, 1.0, 1.0)
    on_border = 0
    for seed in range(50):
        values = list(ask(study, sampler, seed).params.values())
        assert all(-1.0 <= value <= 1.0 for value in values)
        on_border += sum(value == 1.0 for value in values)
    assert on_border > 50


def test_one_dimension_works() -> None:
    space = {"x": FloatDistribution(0.0, 1.0)}
    sampler = CmaEsSampler(space, trials=50)
    study = study_with(sampler, "minimize")
    for seed in range(50):
        sampler.reseed(seed)
        trial = study.ask(fixed_distributions=space)
        study.tell(trial, abs(trial.params["x"] - 0.9))
    assert study.best_value < 0.01


def test_the_rules() -> None:
    assert [population_size(n) for n in (1, 10, 40, 120)] == [4, 10, 15, 18]
    assert is_separable(40, 200)
    assert not is_separable(40, 700)
    assert not is_separable(1, 1)


def test_a_parameter_of_another_space_is_refused() -> None:
    sampler = CmaEsSampler(SPACE, trials=10)
    with pytest.raises(ValueError, match='"y" is not a parameter of this space'):
        study_with(sampler).ask({"y": FloatDistribution(0, 1)})
