"""A campaign over a fake space, run until it is done or killed: `python driver.py FOLDER`.

All samplers go forward in turn, each in its own results folder, so that a kill meets each of them
somewhere else. One line on stdout for every durable step.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from optuna.distributions import FloatDistribution

from evomerge.campaign import Campaign
from evomerge.recipe import Recipe, Slice, Source
from evomerge.search import Study, directions
from evomerge.store import Store
from evomerge.trial import Candidate, Cost, Estimate, Failure, FailureKind, Outcome, TaskScores

SAMPLERS = ("cmaes", "tpe", "nsga2", "gp", "random", "qmc")
OPTIMUM = (0.8, 0.3, 0.6, 0.1)


@dataclass(frozen=True)
class FakeSpace:
    """Weights of one slice; the recipe is a function of the point, as with the real one."""

    distributions: Mapping[str, FloatDistribution]

    def recipe(self, params: Mapping[str, float]) -> Recipe:
        sources = tuple(Source(f"/m/{n}", (0, 1), {"weight": v}) for n, v in params.items())
        return Recipe("task_arithmetic", slices=(Slice(sources),), base_model="/m/base")


def fake_space() -> FakeSpace:
    return FakeSpace({f"weight/{i}": FloatDistribution(0.0, 1.2) for i in range(len(OPTIMUM))})


def fake_campaign(out: Path, mode: str = "mean", **search: object) -> Campaign:
    return Campaign.model_validate(
        {
            "name": out.name,
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
            "search": {"trials": 20, "seed": 7, **search},
            "out": str(out),
        }
    )


def open_study(campaign: Campaign) -> tuple[Store, Study]:
    """Create or open the results folder of a campaign, and its study with three baselines."""
    folder = Path(campaign.out)
    if (folder / "study.db").exists():
        store = Store.open(folder, write=True)
    else:
        store = Store.create(folder, campaign, {}, directions=directions(campaign))
    space = fake_space()
    study = Study(space, campaign.search, directions(campaign), store)  # type: ignore[arg-type]
    for scale in (0.0, 0.3, 1.0):
        near, perplexity = measure([scale] * len(OPTIMUM))
        values = (near, perplexity) if campaign.mode == "pareto" else ((3 * near - perplexity) / 4,)
        study.add_baseline(dict.fromkeys(space.distributions, scale), values)
    return store, study


def measure(weights: list[float]) -> tuple[float, float]:
    """A quadratic to go up, and a distance in one weight to go down, not both at once."""
    near = -sum((w - best) ** 2 for w, best in zip(weights, OPTIMUM, strict=True))
    return near, 2.0 + abs(weights[0] - 0.2)


def evaluate(candidate: Candidate) -> Outcome:
    """Score a candidate; every seventh fails."""
    if candidate.number is not None and candidate.number % 7 == 6:
        return Outcome(failure=Failure(FailureKind.MERGE, "a number of bad luck"))
    sources = candidate.recipe.slices[0].sources
    near, perplexity = measure([float(s.parameters["weight"]) for s in sources])  # type: ignore[arg-type]
    text = {"word_perplexity": Estimate(perplexity)}
    return Outcome(
        {
            "near": TaskScores(("a",), {"acc": (near,)}, {"acc": Estimate(near)}),
            "text": TaskScores(("b",), {"word_perplexity": (perplexity,)}, text),
        },
        cost=Cost(items=2),
    )


def steps(campaign: Campaign) -> Iterator[str]:
    """Run a campaign with one worker, a durable step at a time."""
    store, study = open_study(campaign)
    with store:
        waiting = list(study.interrupted())
        while waiting or study.asked < campaign.search.trials:
            candidate = waiting.pop(0) if waiting else study.ask()
            yield f"asked {campaign.name} {candidate.number}"
            outcome = evaluate(candidate)
            yield f"evaluated {campaign.name} {candidate.number}"
            study.tell(candidate, outcome)
            yield f"told {campaign.name} {candidate.number}"


def main(folder: Path) -> None:
    running = [steps(fake_campaign(folder / name, sampler=name)) for name in SAMPLERS]
    while running:
        for campaign in list(running):
            step = next(campaign, None)
            if step is None:
                running.remove(campaign)
            else:
                print(step, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
