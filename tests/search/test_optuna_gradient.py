from __future__ import annotations

import math

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from evomerge.search.optuna_gradient import GradientSampler
from evomerge.search.samplers.descent import CHECKPOINTS

SPACE = {f"x{n}": FloatDistribution(-1.0, 1.0) for n in range(10)}
BEST = dict(zip(SPACE, np.linspace(-0.6, 0.7, 10).tolist(), strict=True))


def loss(params: dict[str, float]) -> float:
    return sum((params[name] - best) ** 2 for name, best in BEST.items())


def objective(trial: optuna.Trial) -> float:
    return loss({name: trial.suggest_float(name, one.low, one.high) for name, one in SPACE.items()})


class Gradient:
    """The gradient of a quadratic, with the noise of a mini-batch."""

    def __init__(self, noise: float = 0.1) -> None:
        self.noise, self.asked = noise, []  # type: ignore[var-annotated]

    def __call__(self, params: dict[str, float], seed: int) -> dict[str, float]:
        self.asked.append((params, seed))
        noise = np.random.default_rng(seed).normal(0.0, self.noise, len(SPACE))
        return {
            name: 2 * (params[name] - BEST[name]) + extra
            for name, extra in zip(SPACE, noise.tolist(), strict=True)
        }


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def study_of(gradient: Gradient, direction: str = "minimize", seed: int = 0) -> optuna.Study:
    sampler = GradientSampler(SPACE, gradient, seed)  # type: ignore[arg-type]
    return optuna.create_study(direction=direction, sampler=sampler)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_it_goes_down_a_quadratic_and_on_around_the_best(direction: str) -> None:
    gradient = Gradient()
    study = study_of(gradient, direction)
    sign = 1 if direction == "minimize" else -1
    study.optimize(lambda trial: sign * objective(trial), n_trials=20)
    losses = [sign * trial.value for trial in study.trials]  # type: ignore[operator]
    assert len(gradient.asked) == 2 * CHECKPOINTS[-1]  # two paths
    assert losses[len(CHECKPOINTS) - 1] < 0.1 < 1.0 < loss(dict.fromkeys(SPACE, 0.0))
    after = losses[2 * len(CHECKPOINTS) :]
    assert len(after) == 20 - 2 * len(CHECKPOINTS)
    assert max(after) < 0.5  # CMA-ES in small steps around the best


def test_it_is_better_than_random_and_cmaes_at_equal_cost() -> None:
    """A step counts three evaluations."""
    study = study_of(Gradient())
    study.optimize(objective, n_trials=len(CHECKPOINTS))
    evaluations = len(CHECKPOINTS) + 3 * CHECKPOINTS[-1]
    for sampler in (optuna.samplers.RandomSampler(0), optuna.samplers.TPESampler(seed=0)):
        other = optuna.create_study(sampler=sampler)
        other.optimize(objective, n_trials=evaluations)
        assert study.best_value < other.best_value / 2


def test_the_same_seed_gives_the_same_trials() -> None:
    found = []
    for seed in (0, 0, 1):
        gradient = Gradient()
        study = study_of(gradient, seed=seed)
        study.optimize(objective, n_trials=12)
        found.append([trial.params for trial in study.trials])
        assert len({seed for _, seed in gradient.asked}) == len(
            gradient.asked
        )  # fresh mini-batches
    assert found[0] == found[1] != found[2]


def test_it_begins_at_the_best_point_that_the_study_knows() -> None:
    good = dict.fromkeys(SPACE, 0.1)
    gradient = Gradient()
    study = study_of(gradient)
    for at in (0.9, 0.1, -0.7):
        point = dict.fromkeys(SPACE, at)
        study.add_trial(optuna.create_trial(params=point, distributions=SPACE, value=loss(point)))
    study.add_trial(optuna.create_trial(value=0.0))  # of another space
    study.optimize(objective, n_trials=1)
    assert gradient.asked[0][0] == good


def test_trials_that_were_enqueued_are_learned_from() -> None:
    gradient = Gradient()
    study = study_of(gradient)
    study.enqueue_trial(dict.fromkeys(SPACE, 0.1))
    study.optimize(objective, n_trials=2)
    assert study.trials[0].params == dict.fromkeys(SPACE, 0.1)
    assert gradient.asked[0][0] == dict.fromkeys(SPACE, 0.1)
    assert len(gradient.asked) == CHECKPOINTS[0]


def test_failed_and_pruned_trials_do_not_stop_it() -> None:
    study = study_of(Gradient())
    for number in range(12):
        trial = study.ask(SPACE)
        if number % 3 == 0:
            study.tell(trial, state=TrialState.FAIL)
        elif number % 3 == 1:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, loss(trial.params))
    assert study.best_value < 1.0


def test_a_gradient_that_is_none_ends_the_path() -> None:
    study = study_of(Gradient(math.nan))
    study.optimize(objective, n_trials=6)
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 6


def test_several_in_flight_are_told_in_any_order() -> None:
    study = study_of(Gradient())
    study.optimize(objective, n_trials=24, n_jobs=3)
    assert study.best_value < 0.1


def test_what_it_refuses() -> None:
    sampler = GradientSampler(SPACE, Gradient())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a study of one objective, found 2"):
        optuna.create_study(directions=["minimize"] * 2, sampler=sampler).ask()
    trial = study_of(Gradient()).ask()
    with pytest.raises(ValueError, match=r"y in FloatDistribution.* is not in the space"):
        trial.suggest_float("y", 0.0, 1.0)


def test_what_an_enqueued_trial_leaves_open_is_filled_up() -> None:
    study = study_of(Gradient())
    study.enqueue_trial({"x0": 0.25})
    study.optimize(objective, n_trials=len(CHECKPOINTS) + 1)
    first, *others = study.trials
    assert first.params["x0"] == 0.25
    assert first.params.keys() == SPACE.keys()
    assert min(trial.value for trial in others if trial.value is not None) < 0.1
