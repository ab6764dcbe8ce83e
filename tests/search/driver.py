"""A campaign over a fake family, run until it is done or killed: `python driver.py FOLDER [LINES]`.

All samplers go forward in turn, each in its own results folder, so that a kill meets each of them
somewhere else. One line on stdout for every durable step; after so many LINES the process kills itself.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from evomerge import config as settings
from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import (
    Estimate,
    Failure,
    FailureKind,
    GradientJob,
    Gradients,
    Job,
    Outcome,
    Race,
    TaskScores,
)
from evomerge.config import Campaign
from evomerge.objective import Objectives, References
from evomerge.racing import blocks, give_up
from evomerge.search.history import Known
from evomerge.search.study import Study
from evomerge.space import Family, Space
from evomerge.store import Store
from evomerge.workers.pool import Work

SAMPLERS = ("gradient", "cmaes", "tpe", "nsga2", "gp", "random", "qmc")
OPTIMUM = (0.8, 0.3, 0.6, 0.1)
COUNT = 40
"""Search items of each task."""
COUNTS = {"near": COUNT, "text": COUNT}
IDS = {task: tuple(f"{task}{n}" for n in range(COUNT)) for task in COUNTS}
METRICS = {"near": "acc", "text": "word_perplexity"}


@dataclass(frozen=True)
class Parameter:
    per_source: bool = True
    differentiable: bool = True
    default: float | None = None
    reads: str | None = None


@dataclass(frozen=True)
class Method:
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    uses_base: bool = True
    gradients: object = "some"
    rows: bool = False
    elects: bool = False


FACTS = {
    "task_arithmetic": Method({"weight": Parameter()}),
    "linear": Method({"weight": Parameter()}, rows=True),
    "ties": Method(
        {"weight": Parameter(), "density": Parameter(differentiable=False, default=1.0)}
    ),
}


def fake_campaign(out: Path, mode: str = "mean", *, space: Any = None, **search: Any) -> Campaign:
    """Return a campaign of one expert, a weight in each of four groups of layers."""
    return Campaign.model_validate(
        {
            "name": out.name,
            "models": {"base": "/m/base", "experts": ["/m/one"]},
            "space": {
                "method": "task_arithmetic",
                "layers": 4,
                "parameters": {"weight": {"low": 0.0, "high": 1.2}},
                **(space or {}),
            },
            "objectives": [
                {"task": "near", "metric": "acc", "weight": 3.0},
                {"task": "text", "metric": "word_perplexity"},
            ],
            "mode": mode,
            "items": {"search": COUNT, "select": 4, "holdout": 4},
            "search": {"trials": 20, "seed": 7, **search},
            "out": str(out),
        }
    )


def fake_space(chosen: settings.SpaceSettings) -> Space:
    family = Family("/m/base", {"one": "/m/one"}, 4, "float32")
    return Space.build(chosen, family, FACTS)


def measure(weights: Sequence[float]) -> dict[str, Any]:
    """Return per-item values: a quadratic to go up, one in a single weight to go down, not both at once.

    The optimum of each item of `near` lies elsewhere, so that mini-batches differ.
    """
    spread = np.random.default_rng(0).normal(0.0, 0.1, (COUNT, len(OPTIMUM)))
    apart = np.asarray(weights) - (np.asarray(OPTIMUM) + spread - spread.mean(axis=0))
    near = -(apart**2).sum(axis=1)
    text = np.full(COUNT, 2.0 + (weights[0] - 0.2) ** 2)
    return {"near": near, "text": text, "gradients": (2 * apart, 2 * (weights[0] - 0.2))}


def weights_of(merge: Any) -> list[float]:
    return [group[0][0] for group in merge.own["weight"]]


def outcome(weights: Sequence[float], where: Mapping[str, Sequence[int]] | None = None) -> Outcome:
    """Score weights, on all items or some."""
    found = measure(weights)
    scores = {}
    for task, metric in METRICS.items():
        chosen = range(COUNT) if where is None else where[task]
        values = tuple(float(found[task][n]) for n in chosen)
        mean = {metric: Estimate(float(np.mean(values)))}
        scores[task] = TaskScores(tuple(IDS[task][n] for n in chosen), {metric: values}, mean)
    return Outcome(scores, cost=Cost(items=sum(len(one.items) for one in scores.values())))


def evaluate(job: Job) -> Outcome:
    """Score a candidate, in a race if it is one; every seventh fails."""
    number = job.entry.number
    if number is not None and number % 7 == 6:
        return Outcome(failure=Failure(FailureKind.MERGE, "a number of bad luck"))
    return raced(job.race, weights_of(job.entry.candidate))


def raced(race: Race | None, weights: Sequence[float]) -> Outcome:
    if race is None:
        return outcome(weights)
    cut = blocks(race)
    for done in range(1, len(cut) + 1):
        where = {
            task: sorted(n for block in cut[:done] for n in block.get(task, ()))
            for task in race.metrics
        }
        found = outcome(weights, where)
        pruned = None if done == len(cut) else give_up(race, found.scores, done)
        if pruned is not None:
            return replace(found, pruned=pruned)
    return found


def gradient(job: GradientJob) -> Gradients:
    """Return the gradient of Σ share · mean loss, a loss being the value with more is worse."""
    weights = weights_of(job.candidate)
    near, text = measure(weights)["gradients"]
    by_weight = job.shares["near"] * near[list(job.items["near"])].mean(axis=0)
    by_weight[0] += job.shares["text"] * text
    numbers = {"weight": tuple(((float(one),),) for one in by_weight)}
    rows = {"a": row_gradient(job), "b": row_gradient(job)[:, :1]} if job.rows else {}
    return Gradients(1.0, {}, numbers, cost=Cost(items=job.count), rows=rows)


def row_gradient(job: GradientJob) -> Any:
    """Return the gradient by the weights of one expert's four rows, in a mini-batch of its own."""
    fine = job.candidate.coefficients
    at = np.zeros((1, 4), dtype=np.float32) if fine is None else fine.tables["a"]
    apart = at - np.array([0.2, -0.1, 0.05, 0.0]) + 1e-3 * sum(job.items["near"])
    return apart.astype(np.float32)


def answer(work: Work) -> Outcome | Gradients:
    return gradient(work) if isinstance(work, GradientJob) else evaluate(work)


def name_of(work: Work) -> str:
    return work.name if isinstance(work, GradientJob) else work.entry.name


def open_study(campaign: Campaign, **more: Any) -> tuple[Store, Study]:
    """Create or open the results folder of a campaign, and its study with three naive merges."""
    folder = Path(campaign.out)
    if (folder / "study.db").exists():
        store = Store.open(folder, write=True)
    else:
        store = Store.create(folder, campaign, {}, directions=Objectives(campaign).directions)
    space = fake_space(campaign.space)
    merges = {scale: outcome([scale] * len(OPTIMUM)) for scale in (0.0, 0.3, 1.0)}
    known = [Known(outcome([0.1, 1.2, 0.0, 0.9]))]  # a parent that does not lie in the space
    known += [
        Known(one, dict.fromkeys(space.distributions, scale)) for scale, one in merges.items()
    ]
    references = References(merges[0.0], {"one": merges[1.0]}, {"0.3": merges[0.3]})
    arguments = {"known": known, "counts": COUNTS, **more}
    return store, Study(space, Objectives(campaign, references), store, **arguments)


def history(folder: Path) -> list[object]:
    """Everything that a study asked for and noted, in its order."""
    with Store.open(folder, write=False) as store:
        trials = [(t.number, t.params, t.candidate, t.state, t.values) for t in store.trials()]
        steps = [replace(s, asked_seq=0, told_seq=0) for s in store.gradient_steps()]
        return [*trials, *steps, *store.baselines()]


def ask(study: Study, count: int) -> list[Work]:
    """Ask for so many jobs; fewer where the budget is spent or a result must come first."""
    jobs: list[Work] = []
    while len(jobs) < count and (job := study.ask()) is not None:
        jobs.append(job)
    return jobs


def run(
    campaign: Campaign,
    *,
    workers: int = 1,
    reopen_at: tuple[int, ...] = (),
    answers: Callable[[Work], Outcome | Gradients] | None = None,
    **more: Any,
) -> None:
    """Run with several jobs in flight, told in a random order; reopen after some tells."""
    reply = answers or answer
    store, study = open_study(campaign, **more)
    running: list[Work] = []
    shuffled, told = random.Random(3), 0
    while True:
        running += ask(study, workers - len(running))
        if not running:
            break
        work = running.pop(shuffled.randrange(len(running)))
        study.tell(work, reply(work))
        told += 1
        if told in reopen_at:
            store.close()
            store, study = open_study(campaign, **more)
            again = study.interrupted()
            assert sorted(map(repr, again)) == sorted(
                map(repr, running)
            )  # the same jobs, races too
            assert study.interrupted() == []
            names = [name_of(work) for work in running]
            running = sorted(again, key=lambda work: names.index(name_of(work)))
    store.close()


def steps(campaign: Campaign) -> Iterator[str]:
    """Run a campaign with one worker, a durable step at a time."""
    store, study = open_study(campaign)
    with store:
        waiting = study.interrupted()
        while waiting or (work := study.ask()) is not None:
            if waiting:
                work = waiting.pop(0)
            assert work is not None
            name = f"{campaign.name}: {name_of(work)}"
            yield f"asked {name}"
            found = answer(work)
            yield f"evaluated {name}"
            study.tell(work, found)
            yield f"told {name}"


def main(folder: Path, lines: int | None = None, samplers: Sequence[str] = SAMPLERS) -> None:
    running = [steps(fake_campaign(folder / name, sampler=name)) for name in samplers]
    count = 0
    while running:
        for campaign in list(running):
            step = next(campaign, None)
            if step is None:
                running.remove(campaign)
                continue
            print(step, flush=True)
            count += 1
            if count == lines:
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
