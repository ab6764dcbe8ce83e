"""Searches in virtual time: the real loop, study, samplers and races, through failures of all kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomerge.candidate.trial import GradientJob, Gradients
from evomerge.config import Campaign
from evomerge.errors import CampaignError, EvomergeError, ResultsError
from evomerge.store import Store
from evomerge.testing.simulate import Simulated, SimulatedWorkers, nearest, simulate

ITEMS, GROUPS = 64, 3
BEST = np.array([0.8, 0.1, 0.4, 0.6, 0.9, 0.3])
"""Of two experts in three groups of layers."""
CHANCES = np.random.default_rng(0).random((2, ITEMS))
ROUGH = SimulatedWorkers(
    32, speeds=(1.0, 0.5, 2.0), start=40, deaths=0.5, per_node=4, departures=4, absence=400
)


@pytest.fixture
def campaign() -> Campaign:
    return Campaign.model_validate(
        {
            "name": "simulated",
            "models": {"base": "/m/base", "experts": ["/m/one", "/m/two"]},
            "space": {
                "method": "task_arithmetic",
                "layers": GROUPS,
                "parameters": {"weight": {"low": 0.0, "high": 1.2}},
            },
            "objectives": [{"task": "a", "metric": "acc"}, {"task": "b", "metric": "acc"}],
            "items": {"search": ITEMS, "select": 4, "holdout": 4},
            "search": {"sampler": "cmaes", "trials": 60, "seed": 5},
        }
    )


def apart(params: Mapping[str, float]) -> Any:
    return np.array(list(params.values())) - BEST


def outcomes(params: Mapping[str, float]) -> dict[str, Sequence[float]]:
    """Score an item right where it is easier than the point is far from the best one."""
    good = 0.95 - 1.5 * float(np.mean(apart(params) ** 2))
    return {task: (CHANCES[n] < good).astype(float).tolist() for n, task in enumerate("ab")}


def gradients(params: Mapping[str, float], job: GradientJob) -> Gradients:
    by_weight = (2 * apart(params)).reshape(GROUPS, 1, 2)
    return Gradients(1.0, {}, {"weight": tuple(map(tuple, by_weight.tolist()))})


def history(found: Simulated) -> list[object]:
    return [
        (when, trial.number, trial.params, trial.state, trial.values)
        for when, trial in found.trials
    ]


@pytest.mark.parametrize("sampler", ["cmaes", "gradient"])
def test_two_hours_of_failures_lose_no_trial(
    campaign: Campaign, tmp_path: Path, sampler: str
) -> None:
    search = {"sampler": sampler, "trials": None, "hours": 2.0}
    out = tmp_path / "out"
    found = simulate(
        campaign, outcomes, workers=ROUGH, seconds=120, gradients=gradients, folder=out, **search
    )
    assert found.ended == "hours"
    assert found.seconds >= 2 * 3600
    assert found.deaths > 10
    assert found.departures > 20
    assert (found.lost, found.given_up) == (0, 0)
    numbers = [trial.number for _, trial in found.trials]
    assert sorted(numbers) == list(range(len(numbers)))
    with Store.open(out, write=False) as store:
        trials = store.trials()
        steps = store.gradient_steps()
    assert len(trials) == len(numbers) > 500
    assert {trial.state for trial in trials} == {"complete"}
    for trial in trials:
        assert trial.outcome is not None
        recorded = {task: list(one.metrics["acc"]) for task, one in trial.outcome.scores.items()}
        assert recorded == outcomes(trial.params)
    assert all(step.told_seq is not None for step in steps)
    assert bool(steps) == (sampler == "gradient")


@pytest.mark.parametrize("sampler", ["cmaes", "tpe", "nsga2", "random", "qmc", "gradient"])
def test_the_same_seed_gives_the_same_history(campaign: Campaign, sampler: str) -> None:
    found = [
        history(
            simulate(
                campaign,
                outcomes,
                workers=ROUGH,
                gradients=gradients,
                seed=seed,
                sampler=sampler,
                trials=80,
            )
        )
        for seed in (1, 1, 2)
    ]
    assert found[0] == found[1]
    assert found[0] != found[2]


@pytest.mark.parametrize("sampler", ["cmaes", "tpe", "gradient"])
def test_in_order_results_depend_on_no_worker(campaign: Campaign, sampler: str) -> None:
    """With `deterministic` neither speeds nor deaths change what is asked for."""
    search = {"sampler": sampler, "deterministic": True}
    first, second = (
        simulate(campaign, outcomes, workers=workers, gradients=gradients, **search)
        for workers in (
            SimulatedWorkers(6),
            SimulatedWorkers(6, speeds=(1, 0.5, 2), deaths=6, start=9),
        )
    )
    assert second.deaths > 0
    assert second.given_up == 0
    assert [t.params for _, t in first.trials] == [t.params for _, t in second.trials]
    assert second.seconds > first.seconds


def test_seconds_may_depend_on_the_point(campaign: Campaign) -> None:
    found = simulate(
        campaign,
        outcomes,
        workers=SimulatedWorkers(1),
        seconds=lambda params: 10 * params["weight/one/0-1"],
        sampler="random",
        trials=20,
    )
    spent = sum(10 * trial.params["weight/one/0-1"] for _, trial in found.trials)
    assert found.seconds == pytest.approx(spent)
    assert found.busy == pytest.approx((1.0,))


def test_races_give_up_what_is_worse_and_save_its_time(campaign: Campaign) -> None:
    alone, trials = SimulatedWorkers(4), 150
    whole = simulate(campaign, outcomes, workers=alone, trials=trials)
    raced = simulate(campaign, outcomes, workers=alone, trials=trials, pruner="race")
    best, mistaken, pruned = -1.0, 0, 0
    for _, trial in raced.trials:
        true = float(np.mean(list(outcomes(trial.params).values())))
        if trial.state == "pruned":
            pruned += 1
            mistaken += true >= best
        else:
            assert list(trial.values.values()) == pytest.approx([true])
            best = max(best, true)
    assert pruned > trials / 4
    assert mistaken <= 0.1 * pruned
    assert raced.seconds < 0.8 * whole.seconds
    assert raced.best[-1][1] >= whole.best[-1][1] - 0.02


def test_candidates_that_fail_are_told_as_failed(campaign: Campaign) -> None:
    found = simulate(
        campaign,
        lambda params: None if params["weight/one/0-1"] > 0.9 else outcomes(params),
        sampler="random",
    )
    assert {trial.state for _, trial in found.trials} == {"complete", "failed"}
    for _, trial in found.trials:
        assert (trial.state == "failed") == (trial.params["weight/one/0-1"] > 0.9)


def test_a_search_that_learns_has_a_rising_best(campaign: Campaign) -> None:
    found = simulate(campaign, outcomes, sampler="cmaes", trials=200)
    values = [value for _, value in found.best]
    assert values == sorted(set(values))
    assert found.best_at(-1) is None
    assert found.best_at(found.seconds) == values[-1]
    drawn = simulate(campaign, outcomes, sampler="random", trials=200)
    assert values[-1] > drawn.best[-1][1]


def test_a_recorded_campaign_answers_for_its_nearest_trial(
    campaign: Campaign, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = simulate(campaign, outcomes, folder=out)
    table = nearest(out)
    for _, trial in found.trials:
        assert {task: list(v) for task, v in table(trial.params).items()} == outcomes(trial.params)
        near = {name: value + 1e-6 for name, value in trial.params.items()}
        assert table(near) == table(trial.params)
    again = simulate(campaign, table, sampler="random", trials=100)
    assert again.best[-1][1] <= found.best[-1][1]


def test_what_holds_no_campaign_or_no_trial_is_no_table(campaign: Campaign, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no such folder"):
        nearest(tmp_path / "none")
    with pytest.raises(EvomergeError, match="failed alike"):
        simulate(campaign, lambda params: None, folder=tmp_path / "out")
    with pytest.raises(ValueError, match="holds no complete trial"):
        nearest(tmp_path / "out")


def test_what_a_simulation_lacks_is_said(campaign: Campaign) -> None:
    with pytest.raises(CampaignError, match="gradient needs `gradients`; use cmaes"):
        simulate(campaign, outcomes, sampler="gradient")
    space = campaign.space.model_copy(update={"layers": "each"})
    each = campaign.model_copy(update={"space": space})
    with pytest.raises(CampaignError, match="say how many `layers` the models have"):
        simulate(each, outcomes)
    assert len(simulate(each, outcomes, layers=GROUPS, trials=5).trials) == 5
    with pytest.raises(ValueError, match="1 values of a, expected 64"):
        simulate(campaign, lambda params: {"a": [1.0], "b": [1.0]})


def test_a_sampler_is_chosen_as_in_a_campaign(campaign: Campaign, tmp_path: Path) -> None:
    for name, more in (("cmaes", {}), ("gradient", {"gradients": gradients})):
        folder = tmp_path / name
        simulate(campaign, outcomes, folder=folder, sampler="auto", trials=8, **more)
        with Store.open(folder, write=False) as store:
            assert store.campaign.search.sampler == name
