"""What a search will ask for, beside what the samplers do ask for."""

from __future__ import annotations

import random

import pytest
from optuna.distributions import FloatDistribution

from evomerge.config import Campaign
from evomerge.search.forecast import RACED, Forecast, forecast
from evomerge.search.samplers.gradient import DescentSampler
from evomerge.search.samplers.sampler import Measurement, Problem

GOLDS = {"a": 40, "b": 10}


def campaign(mode="mean", **search):
    return Campaign.model_validate(
        {
            "name": "x",
            "models": {"base": "a", "experts": ["b"]},
            "space": {"method": "ties", "parameters": {"weight": {"low": 0, "high": 1}}},
            "objectives": [{"task": "a", "metric": "acc"}, {"task": "b", "metric": "acc"}],
            "items": {"search": 40},
            "mode": mode,
            "search": {"sampler": "cmaes", **search},
        }
    )


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ({"trials": 30}, Forecast(30, 30 * 80)),
        ({}, Forecast(200, 200 * 80)),
        ({"trials": 30, "pruner": "race"}, Forecast(30, pytest.approx(30 * 80 * RACED))),
        ({"trials": 30, "item_evaluations": 800}, Forecast(10, 800)),
        ({"item_evaluations": 850}, Forecast(10, 800)),
        ({"hours": 1}, Forecast(200, 200 * 80)),
        # a path of each of two workers, 8 items of each task a step
        ({"sampler": "gradient", "trials": 40}, Forecast(40, 40 * 80, 160, 16)),
        ({"sampler": "gradient", "trials": 40, "gradient_items": 12}, Forecast(40, 3200, 160, 22)),
        ({"sampler": "gradient", "trials": 3}, Forecast(3, 3 * 80, 15, 16)),  # 10 and 5 steps
        # a checkpoint after 5 steps costs 5 · 3 · 16 + 80 = 320
        ({"sampler": "gradient", "item_evaluations": 850}, Forecast(4, 320, 10, 16)),
    ],
)
def test_budgets(search, expected):
    assert forecast(campaign(**search), 2, GOLDS) == expected


def test_paths_lead_to_several_places_of_a_front():
    found = forecast(campaign("pareto", sampler="gradient", trials=60), 1, GOLDS)
    assert found.steps == 4 * 80


@pytest.mark.parametrize(
    ("trials", "workers"), [(40, 1), (40, 2), (60, 1), (60, 3), (6, 2), (400, 12)]
)
def test_as_many_steps_as_the_sampler_takes(trials, workers):
    space = {"w": FloatDistribution(0.0, 1.0)}
    one = DescentSampler(Problem(space, ("maximize",), trials, 0, ("w",), {"a": 40}, {"a": 1.0}))
    running, steps, asked, told = [], 0, 0, 0
    rng = random.Random(0)
    while told < trials:
        while len(running) < workers and asked < trials:
            step = one.next_step()
            if step is not None:
                one.step_asked(step)
                running.append(step)
            else:
                params = one.propose(asked)
                one.asked(asked, params)
                running.append((asked, params))
                asked += 1
        done = running.pop(rng.randrange(len(running)))
        if isinstance(done, tuple):
            loss = (done[1]["w"] - 0.5) ** 2
            one.told(*done, Measurement((-loss,), loss))
            told += 1
        else:
            one.step_told(done.descent, {"w": done.params["w"] - 0.5})
            steps += 1
    expected = forecast(campaign(sampler="gradient", trials=trials), workers, {"a": 40}).steps
    assert expected / 1.3 <= steps <= 1.3 * expected
