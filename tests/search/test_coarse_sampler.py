from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from evomerge.search.cmaes_sampler import CmaEsSampler
from evomerge.search.coarse_sampler import CoarseSampler
from evomerge.search.optuna_sampler import OptunaSampler
from evomerge.search.random_sampler import RandomSampler
from evomerge.search.sampler import Params, Result, Sampler
from evomerge.space import Space

TRIALS = 24
SWITCH = TRIALS // 3
NAMES = [f"weight/one/{n}-{n + 1}" for n in range(4)]


@pytest.fixture
def space(driver: ModuleType, tmp_path: Path) -> Space:
    chosen = driver.fake_campaign(tmp_path / "out", space={"coarse": 2}).space
    found = driver.fake_space(chosen)
    assert isinstance(found, Space)
    return found


def build(space: Space, name: str) -> CoarseSampler:
    def plain(one: Space) -> Sampler:
        if name == "cmaes":
            return CmaEsSampler(one.distributions, TRIALS, 0)
        if name == "random":
            return RandomSampler(one.distributions, 0)
        return OptunaSampler(name, one.distributions, ["maximize"], TRIALS, 0)

    coarse = space.coarse()
    assert coarse is not None
    return CoarseSampler(space, TRIALS, plain(coarse), lambda: plain(space))


def result(params: Params) -> Result:
    loss = sum(
        (params[name] - best) ** 2 for name, best in zip(NAMES, (0.9, 0.8, 0.2, 0.1), strict=True)
    )
    return Result((-loss,), loss)


def follow(sampler: CoarseSampler, trials: int = TRIALS) -> list[dict[str, float]]:
    found = []
    for number in range(trials):
        params = sampler.propose(number)
        sampler.asked(number, params)
        sampler.told(number, params, result(params))
        found.append(params)
    return found


def is_coarse(params: Params) -> bool:
    values = [params[name] for name in NAMES]
    return values[0] == values[1] and values[2] == values[3]


@pytest.mark.parametrize("name", ["cmaes", "tpe", "nsga2", "random"])
def test_early_trials_have_equal_values_in_nested_groups(space: Space, name: str) -> None:
    points = follow(build(space, name))
    assert all(map(is_coarse, points[:SWITCH]))
    fine = [not is_coarse(params) for params in points[SWITCH:]]
    if name == "nsga2":  # it may cross two coarse ones, and repeat one
        assert any(fine)
    else:
        assert all(fine)
        assert len({tuple(params.values()) for params in points}) == TRIALS


def test_the_finer_search_goes_on_around_the_best_of_the_coarse_one(space: Space) -> None:
    one = build(space, "cmaes")
    points = follow(one)
    best = min(points[:SWITCH], key=lambda params: result(params).loss)
    for params in points[SWITCH : SWITCH + 4]:
        apart = [abs(params[name] - best[name]) / 1.2 for name in NAMES]
        assert max(apart) < 0.6
    fine = one._fine
    assert isinstance(fine, CmaEsSampler)
    assert fine._best is not None
    assert fine._best[0] == min(result(params).loss for params in points)


@pytest.mark.parametrize("name", ["cmaes", "tpe", "nsga2"])
@pytest.mark.parametrize("noted", [3, SWITCH - 1, SWITCH, 15])
def test_hearing_it_all_again_rebuilds_it(space: Space, name: str, noted: int) -> None:
    live, again = build(space, name), build(space, name)
    for one in (live, again):
        one.known(dict.fromkeys(NAMES, 0.3), result(dict.fromkeys(NAMES, 0.3)))
    for number, params in enumerate(follow(live, noted)):
        again.asked(number, params)
        again.told(number, params, result(params))
    assert follow(live, 0) == []
    for number in range(noted, noted + 3):
        params = live.propose(number)
        assert again.propose(number) == params
        for one in (live, again):
            one.asked(number, params)


def test_a_coarse_trial_that_comes_late_is_known_to_both(space: Space) -> None:
    one = build(space, "cmaes")
    late = one.propose(0)
    one.asked(0, late)
    for number in range(1, SWITCH + 1):
        params = one.propose(number)
        one.asked(number, params)
    one.told(0, late, Result((5.0,), -5.0))
    assert isinstance(one._coarse, CmaEsSampler)
    assert isinstance(one._fine, CmaEsSampler)
    for sampler in (one._coarse, one._fine):
        assert sampler._best is not None
        assert sampler._best[0] == -5.0


def test_a_failed_trial_is_heard(space: Space) -> None:
    one = build(space, "tpe")
    for number in (0, SWITCH):
        params = one.propose(number)
        one.asked(number, params)
        one.told(number, params, None)
    assert one._heard == []


def test_one_trial_at_least_is_coarse(space: Space) -> None:
    coarse = space.coarse()
    assert coarse is not None
    samplers = [CmaEsSampler(one.distributions, 1, 0) for one in (coarse, space)]
    one = CoarseSampler(space, 1, samplers[0], lambda: samplers[1])
    assert is_coarse(one.propose(0))
