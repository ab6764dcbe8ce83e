from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution

from evomerge.campaign import Campaign
from evomerge.recipe import Recipe, Slice, Source
from evomerge.search import Study, directions
from evomerge.store import Store
from evomerge.trial import Candidate, Cost, Estimate, Failure, FailureKind, Outcome, TaskScores

OPTIMUM = (0.8, 0.3, 0.6, 0.1)


@dataclass(frozen=True)
class FakeSpace:
    """Four weights of one slice; the recipe is a function of the point, as with the real one."""

    distributions: Mapping[str, FloatDistribution]

    def recipe(self, params: Mapping[str, float]) -> Recipe:
        sources = tuple(Source(f"/m/{n}", (0, 1), {"weight": v}) for n, v in params.items())
        return Recipe("task_arithmetic", slices=(Slice(sources),), base_model="/m/base")


@pytest.fixture
def space() -> FakeSpace:
    return FakeSpace({f"weight/{i}": FloatDistribution(0.0, 1.2) for i in range(len(OPTIMUM))})


@pytest.fixture
def make_campaign(tmp_path: Path) -> Callable[..., Campaign]:
    def make(name: str = "run", mode: str = "mean", **search: object) -> Campaign:
        return Campaign.model_validate(
            {
                "name": name,
                "models": {"base": "/m/base", "experts": ["/m/one"]},
                "space": {
                    "method": "task_arithmetic",
                    "parameters": {"weight": {"low": 0.0, "high": 1.2}},
                },
                "objectives": [
                    {"task": "near", "metric": "acc", "weight": 3.0},
                    {"task": "text", "metric": "word_perplexity"},
                ],
                "mode": mode,
                "search": {"trials": 40, "seed": 7, **search},
                "out": str(tmp_path / name),
            }
        )

    return make


@pytest.fixture
def open_study(space: FakeSpace) -> Callable[..., tuple[Store, Study]]:
    """Open or create the results folder of a campaign, and its study."""

    def start(campaign: Campaign) -> tuple[Store, Study]:
        folder = Path(campaign.out)
        if (folder / "study.db").exists():
            store = Store.open(folder, write=True)
        else:
            store = Store.create(folder, campaign, {}, directions=directions(campaign))
        study = Study(space, campaign.search, directions(campaign), store)  # type: ignore[arg-type]
        for scale in (0.0, 0.3, 1.0):
            point = dict.fromkeys(space.distributions, scale)
            study.add_baseline(point, values_at(campaign, list(point.values())))
        return store, study

    return start


def values_at(campaign: Campaign, weights: list[float]) -> tuple[float, ...]:
    near = -sum((w - best) ** 2 for w, best in zip(weights, OPTIMUM, strict=True))
    perplexity = 2.0 + abs(weights[0] - 0.2)
    return (near, perplexity) if campaign.mode == "pareto" else ((3 * near - perplexity) / 4,)


def evaluate(candidate: Candidate) -> Outcome:
    """Score a candidate of `FakeSpace`; every seventh fails."""
    if candidate.number is not None and candidate.number % 7 == 6:
        return Outcome(failure=Failure(FailureKind.MERGE, "a bad luck number"))
    weights = [float(s.parameters["weight"]) for s in candidate.recipe.slices[0].sources]  # type: ignore[arg-type]
    near = -sum((w - best) ** 2 for w, best in zip(weights, OPTIMUM, strict=True))
    perplexity = 2.0 + abs(weights[0] - 0.2)
    return Outcome(
        {
            "near": TaskScores(("a",), {"acc": (near,)}, {"acc": Estimate(near)}),
            "text": TaskScores(
                ("b",), {"word_perplexity": (perplexity,)}, {"word_perplexity": Estimate(perplexity)}
            ),
        },
        cost=Cost(items=2),
    )
