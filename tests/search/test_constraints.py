from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import TrialState, create_trial

from evomerge.search.constraints import as_constraints, set_constraints

SPACE = {"x": FloatDistribution(0.0, 1.0)}
SAMPLERS = {
    "tpe": lambda: TPESampler(seed=0, n_startup_trials=5, multivariate=True),
    "gp": lambda: GPSampler(seed=0, n_startup_trials=5),
    "nsga2": lambda: NSGAIISampler(seed=0, population_size=10),
}


def test_violations_become_constraints_by_number() -> None:
    assert as_constraints((0.5, -1.0)) == {"0": 0.5, "1": -1.0}
    assert as_constraints(()) is None


def test_a_replayed_trial_gets_them_too() -> None:
    study = optuna.create_study(direction="maximize")
    for x, missing in ((0.9, 0.4), (0.3, 0.0)):
        running = create_trial(state=TrialState.RUNNING, params={"x": x}, distributions=SPACE)
        study.add_trial(running)
        number = study.get_trials(deepcopy=False)[-1].number
        set_constraints(study, number, (missing,))
        study.tell(number, x)
    assert [trial.constraints for trial in study.trials] == [{"0": 0.4}, {"0": 0.0}]
    assert study.best_trial.number == 1


def test_without_conditions_nothing_is_set() -> None:
    study = optuna.create_study()
    trial = study.ask(SPACE)
    set_constraints(study, trial.number, ())
    study.tell(trial.number, 1.0)
    assert study.trials[0].system_attrs == {}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_turn_to_where_the_conditions_are_met(name: str) -> None:
    """The value rises with x, the condition is met below 0.4: without it all would go to 1."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler: BaseSampler = SAMPLERS[name]()
    study = optuna.create_study(direction="maximize", sampler=sampler)
    values = []
    for _ in range(20 if name == "gp" else 60):
        trial = study.ask(SPACE)
        x = trial.params["x"]
        values.append(x)
        set_constraints(study, trial.number, (x - 0.4,))
        study.tell(trial.number, x)
    late = values[len(values) * 2 // 3 :]
    assert sum(x <= 0.45 for x in late) > len(late) / 2
