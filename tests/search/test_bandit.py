"""Every method gets its share, the best gets the most, and subsets are tried from all experts on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from evomerge.search.bandit import SHARE as SPREAD
from evomerge.search.bandit import Bandit
from evomerge.search.samplers import Sampler
from evomerge.search.samplers.sampler import Measurement, Params
from evomerge.space import Choices

TRIALS = 90
SHARE = int(TRIALS * SPREAD / 3)


@pytest.mark.parametrize("sampler", ["gradient", "cmaes", "tpe", "nsga2"])
def test_every_method_is_tried_and_the_best_gets_the_most(
    choices: ModuleType, tmp_path: Path, sampler: str
) -> None:
    """The naive merges are of task arithmetic, but ties is better once its weights are found."""
    points, space = choices.search(choices.campaign(tmp_path, sampler, TRIALS))
    counts = choices.methods_of(points, space)
    least = 4 if sampler == "gradient" else SHARE  # one descent
    assert min(counts[name] for name in choices.METHODS if name != "fixed") >= least
    assert counts.most_common(1)[0][0] == "ties"
    assert counts["dare_linear"] < TRIALS / 4
    assert max(choices.value_at(space, point) for point in points) > 0.77


@pytest.mark.parametrize("sampler", ["gradient", "cmaes", "tpe"])
def test_it_loses_little_against_the_best_method_searched_alone(
    choices: ModuleType, tmp_path: Path, sampler: str
) -> None:
    found = {}
    for method in (["task_arithmetic", "ties", "dare_linear"], "ties"):
        settings = choices.campaign(tmp_path, sampler, 120, {"method": method})
        points, space = choices.search(settings)
        found[str(method)] = max(choices.value_at(space, point) for point in points)
    together, alone = found.values()
    assert together > alone - 0.01


@pytest.mark.parametrize("sampler", ["gradient", "cmaes", "tpe"])
def test_subsets_are_explored_from_all_experts_on(
    choices: ModuleType, tmp_path: Path, sampler: str
) -> None:
    changes = {
        "subsets": True,
        "method": "task_arithmetic",
        "parameters": {"weight": {"low": 0.3, "high": 1.2}},
    }
    points, space = choices.search(choices.campaign(tmp_path, sampler, TRIALS, changes))
    subsets = [Choices(space).at(point).experts for point in points]
    assert subsets[0] == choices.EXPERTS
    assert {("a", "b"), ("a", "c"), ("b", "c")} <= set(subsets)
    assert subsets.count(choices.EXPERTS) >= int(TRIALS * SPREAD)
    # The best weight of c is 0.2: with the least that it may have it is nearer than without it.
    assert max(choices.value_at(space, point) for point in points) > 0.68
    assert sum(len(one) == 1 for one in subsets) < TRIALS / 10


@pytest.mark.parametrize(
    ("mode", "sampler"),
    [("mean", name) for name in ("gradient", "cmaes", "tpe", "nsga2")]
    + [("pareto", name) for name in ("gradient", "tpe", "nsga2")],
)
def test_replayed_calls_rebuild_it(
    choices: ModuleType, tmp_path: Path, sampler: str, mode: str
) -> None:
    settings = choices.campaign(tmp_path, sampler, 50, {"subsets": True}, mode)
    calls = choices.events(settings, workers=4)
    for cut in (7, 60, len(calls)):
        again, _ = choices.opened(settings)
        for name, arguments, _ in calls[:cut]:
            if name not in ("propose", "next_step"):
                getattr(again, name)(*arguments)
        for name, arguments, answer in calls[cut : cut + 40]:
            assert getattr(again, name)(*arguments) == answer


def test_without_numbers_each_choice_is_tried_and_then_nothing_is_left(
    choices: ModuleType, tmp_path: Path
) -> None:
    space = {"method": ["task_arithmetic", "ties"], "subsets": True, "parameters": {"weight": 0.5}}
    points, whole = choices.search(choices.campaign(tmp_path, "cmaes", 60, space))
    assert len({Choices(whole).at(point) for point in points}) > 4


def test_several_objectives_give_every_method_the_same_share(
    choices: ModuleType, tmp_path: Path
) -> None:
    points, space = choices.search(choices.campaign(tmp_path, "nsga2", 60, mode="pareto"))
    assert set(choices.methods_of(points, space).values()) == {20}


def test_a_method_that_always_fails_is_given_up(choices: ModuleType, tmp_path: Path) -> None:
    sampler, space = choices.opened(choices.campaign(tmp_path, "cmaes", TRIALS))
    points = []
    for number in range(TRIALS):
        params = sampler.propose(number)
        sampler.asked(number, params)
        fails = Choices(space).at(params).arm == "ties"
        sampler.told(number, params, None if fails else choices.result_at(space, params))
        points.append(params)
    assert SHARE <= choices.methods_of(points, space)["ties"] <= SHARE + 2


def test_only_where_something_is_chosen_there_is_a_bandit(
    choices: ModuleType, tmp_path: Path
) -> None:
    for sampler in ("gradient", "gp"):
        found, _ = choices.opened(choices.campaign(tmp_path, sampler, 20))
        assert isinstance(found, Bandit)
        assert found.needs_gold == (sampler == "gradient")
        alone, _ = choices.opened(choices.campaign(tmp_path, sampler, 20, {"method": "ties"}))
        assert not isinstance(alone, Bandit)


def test_a_subset_that_is_known_beforehand_is_not_where_the_search_begins(
    choices: ModuleType, tmp_path: Path
) -> None:
    """An expert alone is a parent: the search still begins with all of them."""
    space = {"method": "task_arithmetic", "subsets": True}
    space["parameters"] = {"weight": {"low": 0.0, "high": 1.2}}
    sampler, whole = choices.opened(choices.campaign(tmp_path, "cmaes", 60, space))
    alone = next(row.params for row in whole.baselines() if row.name == "a")
    sampler.known(alone, choices.Measurement((0.99,), -0.99))
    subsets = []
    for number in range(60):
        params = sampler.propose(number)
        sampler.asked(number, params)
        sampler.told(number, params, choices.result_at(whole, params))
        subsets.append(Choices(whole).at(params).experts)
    assert subsets.count(choices.EXPERTS) >= int(60 * SPREAD)
    assert len(set(subsets)) > 3


class Recording(Sampler):
    """Random points; it keeps those that it was told of and did not ask for."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.others: list[Params] = []

    def propose(self, number: int, attempt: int = 0) -> dict[str, float]:
        values = np.random.default_rng(number).uniform(0.2, 1.0, len(self.names))
        return dict(zip(self.names, values.tolist(), strict=True))

    def known(self, params: Params, result: Measurement) -> None:
        self.others.append(params)


@pytest.mark.parametrize("behind", [False, True])
def test_the_winner_is_told_what_a_method_found_that_is_as_good_and_no_other(
    choices: ModuleType, tmp_path: Path, behind: bool
) -> None:
    methods = {"method": ["task_arithmetic", "dare_linear"]}
    space = choices.space_of(choices.campaign(tmp_path, "random", 48, methods))
    items = {"task_arithmetic": np.full(96, 0.7), "dare_linear": np.tile([0.6, 0.798], 48)}
    if behind:
        items["dare_linear"] -= 0.5
    outcomes = {name: choices.outcome_of(values) for name, values in items.items()}
    samplers: list[Recording] = []

    def build(names: Mapping[str, float], _: Sequence[str]) -> Sampler:
        samplers.append(Recording(names))
        return samplers[-1]

    bandit = Bandit(Choices(space), build, 48, lambda one: np.array(one.scores["t"].metrics["acc"]))
    others = []
    for number in range(48):
        params = bandit.propose(number)
        bandit.asked(number, params)
        method = space.method(params)
        value = float(items[method].mean())
        bandit.told(number, params, Measurement((value,), -value, (), outcomes[method]))
        if method == "dare_linear":
            others.append({name: params[name] for name in samplers[0].names})
    tried_before = 1  # the leader's best point, moved over
    assert len(others) == 4
    assert samplers[0].others == ([] if behind else others[tried_before:])
