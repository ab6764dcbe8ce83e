"""A synthetic objective over methods, subsets of three experts, weights and densities: no models."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import Estimate, Outcome, TaskScores
from evomerge.config import Campaign
from evomerge.objective import Objectives
from evomerge.search.opening import open_sampler
from evomerge.search.samplers.sampler import Measurement, Params, Sampler
from evomerge.space import Choices, Family, Region, Space

EXPERTS = ("a", "b", "c")
ITEMS = 96
APART = np.random.default_rng(0).normal(0.0, 0.5, (ITEMS, len(EXPERTS)))
"""By which the best weights of an item are others than those of all: so candidates differ item by item."""
APART -= APART.mean(axis=0)
TOP = {"task_arithmetic": 0.7, "ties": 0.8, "dare_linear": 0.55, "fixed": 0.1}
"""The best value of each method: the naive merges say little of it."""
BEST = {"a": 0.9, "b": 0.6, "c": 0.2}


@dataclass(frozen=True)
class Parameter:
    per_source: bool = True
    differentiable: bool = True
    default: float | None = None
    reads: str | None = None


@dataclass(frozen=True)
class Method:
    parameters: dict[str, Parameter] = field(default_factory=dict)
    uses_base: bool = True
    gradients: object | None = "some"
    rows: bool = False
    elects: bool = False


DENSE = {"weight": Parameter(), "density": Parameter(differentiable=False, default=1.0)}
METHODS = {
    "task_arithmetic": Method({"weight": Parameter()}),
    "ties": Method(DENSE),
    "dare_linear": Method(DENSE),
    "fixed": Method({}, gradients=None),
}


def campaign(
    out: Path, sampler: str, trials: int, space: Any = None, mode: str = "mean"
) -> Campaign:
    return Campaign.model_validate(
        {
            "name": "choices",
            "models": {"base": "/base", "experts": [f"/{name}" for name in EXPERTS]},
            "space": {
                "method": ["task_arithmetic", "ties", "dare_linear"],
                "parameters": {
                    "weight": {"low": 0.0, "high": 1.2},
                    "density": {"low": 0.2, "high": 1.0, "per": []},
                },
                **(space or {}),
            },
            "objectives": [{"task": "t", "metric": "acc"}]
            + [{"task": "u", "metric": "acc"}] * (mode != "mean"),
            "mode": mode,
            "items": {"search": ITEMS, "select": 4, "holdout": 4},
            "search": {"sampler": sampler, "trials": trials},
            "out": str(out),
        }
    )


def space_of(settings: Campaign) -> Space:
    family = Family("/base", {name: f"/{name}" for name in EXPERTS}, 2, "float32")
    return Space.build(settings.space, family, METHODS)


def weights_at(choice: Region, params: Params) -> np.ndarray:
    return np.array(
        [params.get(f"weight/{name}", 0.5) if name in choice.experts else 0.0 for name in EXPERTS]
    )


def value_at(space: Space, params: Params) -> float:
    """Return the value: the method's best one less the square of the distance from the best weights."""
    choice = Choices(space).at(params)
    apart = weights_at(choice, params) - np.array(list(BEST.values()))
    value = TOP[choice.arm] - 0.3 * float(apart @ apart)
    if "density" in METHODS[choice.arm].parameters and "density" in params:
        value -= 0.3 * (params["density"] - 0.5) ** 2
    return value


def outcome_at(space: Space, params: Params) -> Outcome:
    away = weights_at(Choices(space).at(params), params) - np.array(list(BEST.values()))
    return outcome_of(value_at(space, params) + 0.6 * APART @ away)


def outcome_of(values: np.ndarray) -> Outcome:
    scores = TaskScores(
        tuple(map(str, range(ITEMS))),
        {"acc": tuple(values.tolist())},
        {"acc": Estimate(float(values.mean()))},
    )
    return Outcome({"t": scores, "u": scores}, cost=Cost(items=ITEMS))


def result_at(space: Space, params: Params, objectives: int = 1) -> Measurement:
    outcome = outcome_at(space, params)
    value = outcome.scores["t"].values["acc"].value
    return Measurement((value,) * objectives, -value, (), outcome)


def gradient_at(space: Space, params: Params) -> dict[str, float]:
    choice = Choices(space).at(params)
    found = 0.6 * (weights_at(choice, params) - np.array(list(BEST.values())))
    return {
        f"weight/{name}": float(one) if name in choice.experts else 0.0
        for name, one in zip(EXPERTS, found, strict=True)
    }


def opened(settings: Campaign) -> tuple[Sampler, Space]:
    """Open the campaign's sampler, which knows the naive merges of task arithmetic."""
    space = space_of(settings)
    aims = Objectives(settings)
    directions = aims.directions
    sampler = open_sampler(
        settings,
        space,
        aims,
        {"t": ITEMS},
        settings.planned_trials,
    )
    for row in space.baselines():
        if row.params is not None:
            sampler.known(row.params, result_at(space, row.params, len(directions)))
    return sampler, space


def search(settings: Campaign) -> tuple[list[dict[str, float]], Space]:
    """Search with one worker; return the points of all trials."""
    sampler, space = opened(settings)
    points: list[dict[str, float]] = []
    while len(points) < settings.planned_trials:
        if (step := sampler.next_step()) is not None:
            sampler.step_asked(step)
            sampler.step_told(step.descent, gradient_at(space, step.params))
            continue
        number = len(points)
        params = sampler.propose(number)
        sampler.asked(number, params)
        sampler.told(number, params, result_at(space, params, len(Objectives(settings).directions)))
        points.append(params)
    return points, space


def events(settings: Campaign, workers: int) -> list[tuple[str, tuple[Any, ...], Any]]:
    """Search with several workers whose results come in any order; return every call and its answer."""
    sampler, space = opened(settings)
    order = random.Random(5)
    calls: list[tuple[str, tuple[Any, ...], Any]] = []
    running: list[tuple[str, Any, Params]] = []
    number, objectives = 0, len(Objectives(settings).directions)

    def call(name: str, *arguments: Any) -> Any:
        answer = getattr(sampler, name)(*arguments)
        calls.append((name, arguments, answer))
        return answer

    while number < settings.planned_trials or running:
        if len(running) < workers and number < settings.planned_trials:
            step = call("next_step")
            if step is not None:
                call("step_asked", step)
                running.append(("step_told", step.descent, step.params))
                continue
            params = call("propose", number)
            call("asked", number, params)
            running.append(("told", number, params))
            number += 1
            continue
        what, which, params = running.pop(order.randrange(len(running)))
        if what == "told":
            call(
                what,
                which,
                params,
                None if which % 7 == 6 else result_at(space, params, objectives),
            )
        else:
            call(what, which, gradient_at(space, params))
    return calls


def methods_of(points: list[dict[str, float]], space: Space) -> Counter[str]:
    return Counter(Choices(space).at(params).arm for params in points)
