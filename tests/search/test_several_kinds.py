"""Kinds that compete are arms of one bandit, beside the methods of the merges among them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from optuna.distributions import FloatDistribution

from evomerge.kinds import SearchSpace
from evomerge.objective import Objectives
from evomerge.search.bandit import SHARE, Bandit
from evomerge.search.opening import open_sampler
from evomerge.search.samplers.descent import CHECKPOINTS
from evomerge.search.samplers.sampler import Measurement, Params
from evomerge.space import Needs, SeveralSpaces

TRIALS = 96
ARMS = ("merge/task_arithmetic", "merge/ties", "merge/dare_linear", "router", "deeper")
FIRST = int(TRIALS * SHARE / len(ARMS))


@dataclass
class Other(SearchSpace):
    """Two numbers, without gradients."""

    best_merge: bool = False

    @property
    def distributions(self) -> dict[str, FloatDistribution]:
        return {"layer": FloatDistribution(0.0, 4.0), "margin": FloatDistribution(0.0, 2.0)}

    @property
    def needs(self) -> Needs:
        return Needs(best_merge=self.best_merge)

    def candidate(self, params: Any, coefficients: Any = None, best: Any = None) -> Any:
        return tuple(sorted(params.items()))

    def baselines(self) -> tuple[()]:
        return ()


@pytest.fixture
def whole(choices: ModuleType, tmp_path: Path) -> SeveralSpaces:
    merges = choices.space_of(choices.campaign(tmp_path, "cmaes", TRIALS))
    return SeveralSpaces({"merge": merges, "router": Other(best_merge=True), "deeper": Other()})


def value_at(choices: ModuleType, whole: SeveralSpaces, params: Params, top: float) -> float:
    """The router's best value is `top`, at layer 3 and margin 1; deeper models have 0.3 at most."""
    arm = whole.regions.at(params).arm
    if arm.startswith("merge"):
        own = {k.removeprefix("merge/"): v for k, v in params.items() if k.startswith("merge/")}
        return float(choices.value_at(whole.spaces["merge"], own))
    apart = (params[f"{arm}/layer"] - 3.0) ** 2 / 16 + (params[f"{arm}/margin"] - 1.0) ** 2 / 4
    return (top if arm == "router" else 0.3) - apart


def run(
    choices: ModuleType,
    whole: SeveralSpaces,
    folder: Path,
    sampler: str,
    mode: str = "mean",
    top: float = 0.9,
) -> list[dict[str, float]]:
    settings = choices.campaign(folder, sampler, TRIALS, mode=mode)
    count = len(Objectives(settings).directions)
    opened = open_sampler(settings, whole, Objectives(settings), {"t": choices.ITEMS}, TRIALS)
    assert isinstance(opened, Bandit)

    def result(params: Params) -> Measurement:
        value = value_at(choices, whole, params, top)
        outcome = choices.outcome_of(np.full(choices.ITEMS, value))
        return Measurement((value,) * count, -value, (), outcome)

    for row in whole.baselines():
        if row.params is not None:
            opened.known(row.params, result(row.params))
    points: list[dict[str, float]] = []
    while len(points) < TRIALS:
        if (step := opened.next_step()) is not None:
            opened.step_asked(step)
            arm = whole.regions.at(step.params).arm
            assert arm.startswith("merge/")  # the others have no gradient
            own = {k.removeprefix("merge/"): v for k, v in step.params.items()}
            found = choices.gradient_at(whole.spaces["merge"], own)
            opened.step_told(step.descent, {f"merge/{k}": v for k, v in found.items()})
            continue
        params = opened.propose(len(points))
        assert params.keys() == whole.distributions.keys()
        opened.asked(len(points), params)
        opened.told(len(points), params, result(params))
        points.append(params)
    return points


@pytest.mark.parametrize("sampler", ["gradient", "cmaes", "tpe", "nsga2"])
def test_every_arm_has_its_share_and_the_best_kind_has_the_most(
    choices: ModuleType, whole: SeveralSpaces, tmp_path: Path, sampler: str
) -> None:
    points = run(choices, whole, tmp_path, sampler)
    counts = Counter(whole.regions.at(point).arm for point in points)
    assert set(counts) == set(ARMS)
    assert min(counts.values()) >= FIRST
    assert counts.most_common(1)[0][0] == "router"
    assert counts["deeper"] < TRIALS / 4
    assert max(value_at(choices, whole, point, 0.9) for point in points) > 0.89


def test_merges_that_are_best_win_over_other_kinds(
    choices: ModuleType, whole: SeveralSpaces, tmp_path: Path
) -> None:
    counts = Counter(
        whole.regions.at(point).arm for point in run(choices, whole, tmp_path, "cmaes", top=0.2)
    )
    assert counts.most_common(1)[0][0] == "merge/ties"
    assert counts["router"] < TRIALS / 4


@pytest.mark.parametrize("mode", ["mean", "pareto"])
def test_what_is_made_over_the_best_merge_waits_for_the_merges_first_round(
    choices: ModuleType, whole: SeveralSpaces, tmp_path: Path, mode: str
) -> None:
    arms = [
        whole.regions.at(point).arm for point in run(choices, whole, tmp_path, "nsga2", mode=mode)
    ]
    before = Counter(arms[: arms.index("router")])
    assert set(before) == set(ARMS) - {"router"}
    assert min(before.values()) >= FIRST
    if mode == "pareto":  # then it catches up: every arm may hold a part of the front
        counts = Counter(arms)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_descents_of_merges_end_before_anything_is_made_over_the_best_of_them(
    choices: ModuleType, whole: SeveralSpaces, tmp_path: Path
) -> None:
    points = run(choices, whole, tmp_path, "gradient")
    arms = [whole.regions.at(point).arm for point in points]
    before = Counter(arms[: arms.index("router")])
    merges = [arm for arm in ARMS if arm.startswith("merge/")]
    assert min(before[arm] for arm in merges) >= len(CHECKPOINTS) - 1  # one may end early


def test_the_numbers_of_one_kind_are_not_moved_into_another(
    choices: ModuleType, whole: SeveralSpaces, tmp_path: Path
) -> None:
    points = run(choices, whole, tmp_path, "cmaes")
    middle = {at: (one.low + one.high) / 2 for at, one in whole.distributions.items()}
    first: dict[str, dict[str, float]] = {}
    for point in points:
        arm = whole.regions.at(point).arm
        first.setdefault(arm, point)
        name = arm.partition("/")[0]
        for at, value in point.items():
            if at.startswith("kind/"):
                assert value == float(at == f"kind/{name}")
            elif not at.startswith(f"{name}/"):
                assert value == middle[at]
    for arm in ("router", "deeper"):  # of which nothing is known: it begins in the middle
        assert first[arm] == whole.regions.default_point(whole.regions.at(first[arm]))
