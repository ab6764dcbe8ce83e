from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.speed import _trajectories
from benchmarks.speed._trajectories import (
    Reached,
    Step,
    incumbents,
    of_campaign,
    reached,
    with_mergekit_settings,
)
from evomerge.candidate import Merge, Recipe, Source
from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import Outcome
from evomerge.config import SpaceSettings
from evomerge.merge.methods import METHODS
from evomerge.space import Family, Space


def named(name: str) -> Recipe:
    return Recipe(method="passthrough", models=(Source(name),))


STEPS = [
    Step(320, 1.0, 0.5, named("a")),
    Step(640, 2.0, 0.4, named("worse")),
    Step(960, 3.0, 0.6, named("b")),
    Step(1280, 4.0, 0.6, named("equal")),
    Step(1600, 5.0, 0.7, named("c")),
]
HOLDOUT = {"a": 0.3, "b": 0.2, "c": 0.5, "worse": 0.9, "equal": 0.9}


def holdout(recipe: Recipe) -> float:
    return HOLDOUT[recipe.models[0].model]


def test_incumbents_are_those_better_than_all_before() -> None:
    assert [step.recipe.models[0].model for step in incumbents(STEPS)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("goal", "expected"),
    [(0.3, Reached(320, 1.0)), (0.31, Reached(1600, 5.0)), (0.6, Reached(None, None))],
)
def test_a_goal_is_reached_by_an_incumbent_only(goal: float, expected: Reached) -> None:
    assert reached(STEPS, goal, holdout) == expected


class FakeJudge:
    """The closer every weight is to 0.6, the better."""

    def __init__(self) -> None:
        self.weights: list[list[float]] = []

    def items(self, split: str) -> int:
        return 320

    def score(self, recipe: Merge, split: str) -> float:
        found = np.ravel(recipe.own["weight"]).tolist()
        self.weights.append(found)
        return -float(np.square(np.array(found) - 0.6).sum())


def test_mergekits_settings_begin_at_the_average_and_make_weights_positive() -> None:
    settings = {
        "method": "task_arithmetic",
        "layers": 2,
        "parameters": {"weight": {"low": 0.0, "high": 1.0}},
    }
    experts = {name: name for name in "abcd"}
    space = Space.build(
        SpaceSettings.model_validate(settings), Family("base", experts, 2, "float32"), METHODS
    )
    scorer = FakeJudge()
    steps = with_mergekit_settings(scorer, space, 200, seed=3)
    assert len(steps) == 200
    assert [step.items for step in steps[:2]] == [320, 640]
    assert steps[-1].items == 200 * 320
    drawn = np.array(scorer.weights)
    assert (drawn >= 0).all()
    assert drawn[:10].mean() == pytest.approx(0.25, abs=0.08)
    assert drawn[:10].std() == pytest.approx(1 / 6, abs=0.06)
    assert incumbents(steps)[-1].value > -0.1 > steps[0].value
    again = with_mergekit_settings(FakeJudge(), space, 20, seed=3)
    assert [step.value for step in again] == [step.value for step in steps[:20]]


def trial(told: int | None, value: float, state: str = "complete") -> SimpleNamespace:
    return SimpleNamespace(
        told_seq=told,
        state=state,
        values=(value,),
        outcome=Outcome(cost=Cost(items=100)),
        candidate=named(str(value)),
    )


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the store hand out what a test says."""

    def fill(trials: list[SimpleNamespace], gradients: list[SimpleNamespace]) -> None:
        baseline = SimpleNamespace(split="search", outcome=Outcome(cost=Cost(items=1000)))
        other = SimpleNamespace(split="select", outcome=Outcome(cost=Cost(items=7)))

        class Fake:
            def __enter__(self) -> SimpleNamespace:
                return SimpleNamespace(
                    trials=lambda: trials,
                    gradient_steps=lambda: gradients,
                    evaluations=lambda: [baseline, other],
                )

            def __exit__(self, *_: object) -> None:
                pass

        monkeypatch.setattr(_trajectories.Store, "open", lambda *_, **__: Fake())

    return fill


def gradient(told: int | None) -> SimpleNamespace:
    return SimpleNamespace(told_seq=told, items={"t": (1, 2), "u": (0, 5, 9)})


def test_a_campaign_pays_for_gradients_threefold_and_for_pruned_trials(
    store: Callable[..., None],
) -> None:
    trials = [trial(9, 0.3), trial(2, 0.1), trial(4, 0.2, "pruned"), trial(None, 0.9, "asked")]
    store(trials, [gradient(3), gradient(5), gradient(10), gradient(None)])
    steps = of_campaign(Path("anywhere"), [1.0, 2.0, 3.0], baselines=False)
    assert [(step.items, step.seconds, step.value) for step in steps] == [
        (100, 1.0, 0.1),
        (300 + 2 * 3 * 5, 3.0, 0.3),
    ]
    with_baselines = of_campaign(Path("anywhere"), [1.0, 2.0, 3.0], baselines=True)
    assert [step.items for step in with_baselines] == [1100, 1330]
