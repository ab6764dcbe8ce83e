from __future__ import annotations

import inspect
import random

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from evomerge.search.samplers import SAMPLERS
from evomerge.search.samplers.optuna_samplers import OptunaSampler
from evomerge.search.samplers.sampler import Measurement, Params, Problem

SPACE = {name: FloatDistribution(0.0, 1.0) for name in "abcd"}
NAMES = ("tpe", "nsga2", "gp")


def opened(name: str, seed: int = 0, several: bool = False, trials: int = 100) -> OptunaSampler:
    directions = ("maximize", "minimize") if several else ("maximize",)
    found = SAMPLERS[name](Problem(SPACE, directions, trials, seed))
    assert isinstance(found, OptunaSampler)
    return found


def result(params: Params, several: bool = False) -> Measurement:
    value = -sum((one - 0.3) ** 2 for one in params.values())
    values = (value, params["a"]) if several else (value,)
    return Measurement(values, -value)


def known(one: OptunaSampler, several: bool = False) -> None:
    for at in (0.0, 0.5, 1.0):
        point = dict.fromkeys(SPACE, at)
        one.known(point, result(point, several))


@pytest.mark.parametrize("name", NAMES)
def test_a_draw_is_a_function_of_seed_and_number(name: str) -> None:
    assert opened(name).propose(3) == opened(name).propose(3)
    assert opened(name).propose(3) != opened(name).propose(4)
    assert opened(name).propose(3) != opened(name, seed=1).propose(3)


@pytest.mark.parametrize("name", NAMES)
def test_every_attempt_is_the_same_and_leaves_one_trial(name: str) -> None:
    one = opened(name)
    assert one.propose(0) == one.propose(0, 1)
    assert len(one._study.trials) == 1


def test_a_new_number_repeats_no_point_of_an_old_seed() -> None:
    points = {tuple(opened("tpe", s).propose(n).values()) for n in range(10) for s in range(10)}
    assert len(points) == 100


@pytest.mark.parametrize(
    ("name", "trials", "several", "kept"),
    [("gp", 24, False, 8), ("tpe", 60, True, 8), ("tpe", 60, False, 8)]
    + [(name, n, s, 500) for name, n in (("tpe", 40), ("nsga2", 60)) for s in (False, True)],
)
def test_replayed_calls_rebuild_it(
    name: str, trials: int, several: bool, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several in flight, told in any order, one of them known from elsewhere in between."""
    if name != "nsga2":
        monkeypatch.setattr(SAMPLERS[name], "kept", kept)
    live, again = opened(name, several=several), opened(name, several=several)
    order, running = random.Random(4), {}
    known(live, several)
    known(again, several)
    for number in range(trials):
        running[number] = params = live.propose(number)
        live.asked(number, params)
        again.asked(number, params)
        if number == trials // 3:
            for one in (live, again):
                known(one, several)
        while len(running) >= 3:
            done = order.choice(sorted(running))
            found = None if done % 7 == 6 else result(running[done], several)
            for one in (live, again):
                one.told(done, running[done], found)
            del running[done]
    if name == "nsga2":
        assert max(t.system_attrs["NSGAIISampler:generation"] for t in live._study.trials) >= 3
    assert again.propose(trials) == live.propose(trials)


def test_of_many_trials_the_best_and_the_latest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SAMPLERS["tpe"], "kept", 8)
    one = opened("tpe")
    points = [one.propose(number) for number in range(14)]
    for number, point in enumerate(points):
        one.asked(number, point)
    for number in range(11):  # of which 4 fails; 3, 1, 2, 5 are the best, 11, 12, 13 in flight
        loss = {3: -9.0, 1: -8.0, 2: -7.0, 5: -6.0}.get(number, float(number))
        one.told(number, points[number], None if number == 4 else Measurement((-loss,), loss))
        assert len(one._study.trials) == 14
    one.known(dict.fromkeys(SPACE, 0.5), Measurement((0.5,), -0.5))
    left = [(trial.state, trial.params) for trial in one._study.trials]
    done = [params for state, params in left if state == TrialState.COMPLETE]
    assert done == [points[n] for n in (1, 2, 3, 5, 8, 9, 10)] + [dict.fromkeys(SPACE, 0.5)]
    assert [params for state, params in left if state == TrialState.RUNNING] == points[11:]
    one.told(12, points[12], Measurement((77.0,), -77.0))
    (best,) = one._study.best_trials
    assert best.params == points[12]


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_space_is_what_optuna_would_find(name: str) -> None:
    one = opened(name)
    known(one)
    trial, sampler = one._study.trials[-1], one._build(0)
    found = type(sampler).__mro__[2].infer_relative_search_space(sampler, one._study, trial)
    ours = sampler.infer_relative_search_space(one._study, trial)
    assert list(ours.items()) == list(found.items())


@pytest.mark.parametrize("name", NAMES)
def test_several_objectives(name: str) -> None:
    assert set(opened(name, several=True).propose(0)) == set(SPACE)


def test_known_points_belong_to_the_first_generation() -> None:
    one = opened("nsga2")
    known(one)
    sampler = one._build(0)
    assert isinstance(sampler, optuna.samplers.NSGAIISampler)
    assert len(sampler.get_population(one._study, 0)) == 3


def test_a_failed_trial_is_a_failed_trial() -> None:
    one = opened("tpe")
    one.asked(0, one.propose(0))
    one.told(0, one.propose(0), None)
    assert [trial.state for trial in one._study.trials] == [TrialState.FAIL]


def test_violations_are_optunas_constraints() -> None:
    one = opened("tpe")
    one.known(dict.fromkeys(SPACE, 0.5), Measurement((1.0,), -1.0, (-0.5, 0.25)))
    one.asked(0, one.propose(0))
    one.told(0, one.propose(0), Measurement((1.0,), -1.0, (0.0, 1.0)))
    found = [trial.constraints for trial in one._study.trials]
    assert found == [{"0": -0.5, "1": 0.25}, {"0": 0.0, "1": 1.0}]
    other = opened("tpe")  # of a campaign without constraints
    known(other)
    assert [trial.constraints for trial in other._study.trials] == [{}, {}, {}]


def test_a_generation_counts_what_became_known_after_the_last_question() -> None:
    """Optuna keeps a list of the finished trials until it is asked again, which a replay never does."""
    live, again = opened("nsga2"), opened("nsga2")
    running = {}
    for number in range(4):
        running[number] = live.propose(number)
        for one in (live, again):
            one.asked(number, running[number])
    for one in (live, again):
        for at in range(10):  # the first generation is full
            point = dict.fromkeys(SPACE, at / 10)
            one.known(point, result(point))
    params = live.propose(4)
    again.asked(4, params)
    generations = [
        one._study.trials[-1].system_attrs["NSGAIISampler:generation"] for one in (live, again)
    ]
    assert generations == [1, 1]


@pytest.mark.parametrize(
    "kind", [optuna.samplers.TPESampler, optuna.samplers.NSGAIISampler, optuna.samplers.GPSampler]
)
def test_every_argument_is_stated(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna's defaults change between versions; only deprecated arguments may be left out."""
    stated: dict[str, object] = {}
    name = {"TPESampler": "tpe", "NSGAIISampler": "nsga2", "GPSampler": "gp"}[kind.__name__]
    known = set(inspect.signature(kind.__init__).parameters) - {"self"}
    one = opened(name)
    monkeypatch.setattr(kind, "__init__", lambda self, **arguments: stated.update(arguments))
    one._build(0)
    deprecated = {"consider_prior", "prior_weight", "consider_magic_clip", "consider_endpoints"}
    deprecated |= {"gamma", "weights", "warn_independent_sampling"} if name == "tpe" else set()
    assert known - set(stated) <= deprecated


@pytest.mark.parametrize("name", NAMES)
def test_samplers_turn_to_where_the_constraints_are_met(name: str) -> None:
    """The value rises with a, the constraint is met below 0.4: without it all would go to 1."""
    one, values = opened(name), []
    for number in range(20 if name == "gp" else 60):
        params = one.propose(number)
        one.asked(number, params)
        one.told(number, params, Measurement((params["a"],), -params["a"], (params["a"] - 0.4,)))
        values.append(params["a"])
    late = values[len(values) * 2 // 3 :]
    assert sum(a <= 0.45 for a in late) > len(late) / 2
