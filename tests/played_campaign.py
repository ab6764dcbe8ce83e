"""A campaign of three tasks played into a results folder: scores drawn at given rates, nothing is merged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from optuna.distributions import FloatDistribution

from evomerge.candidate import Merge
from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import (
    SPLITS,
    Entry,
    Estimate,
    Failure,
    FailureKind,
    Job,
    Outcome,
    Split,
    TaskScores,
)
from evomerge.config import Campaign
from evomerge.objective import Objectives, References
from evomerge.store import Store

TASKS = ("zoo_extraction", "zoo_tools", "zoo_facts")
ITEMS = {"search": 24, "select": 24, "holdout": 80}
RATES = {
    "base": (0.1, 0.1, 0.1),
    "extraction": (0.95, 0.1, 0.1),
    "tools": (0.1, 0.9, 0.1),
    "uniform average": (0.6, 0.55, 0.6),
    "task arithmetic λ=0.4": (0.65, 0.7, 0.7),
    "task arithmetic λ=0.8": (0.4, 0.4, 0.4),
    "ties": (0.5, 0.5, 0.5),
    "trial 0": (0.3, 0.3, 0.3),
    "trial 1": (0.95, 0.95, 0.9),
    "trial 2": (0.7, 0.7, 0.7),
}
KINDS = {
    "base": "base",
    "extraction": "expert",
    "tools": "expert",
    "uniform average": "baseline",
    "task arithmetic λ=0.4": "baseline",
    "task arithmetic λ=0.8": "baseline",
    "ties": "baseline",
}


def make_campaign(out: Path, **changes: Any) -> Campaign:
    data: dict[str, Any] = {
        "name": "small",
        "models": {"base": "zoo:base", "experts": ["zoo:extraction", "zoo:tools"]},
        "space": {
            "method": "task_arithmetic",
            "parameters": {"weight": {"low": 0.0, "high": 1.0}},
        },
        "objectives": [{"task": task, "metric": "exact_match"} for task in TASKS],
        "items": ITEMS,
        "search": {"sampler": "cmaes", "trials": 4, "finalists": 2},
        "out": str(out),
    }
    return Campaign.model_validate({**data, **changes})


def recipe(weight: float = 0.5) -> Merge:
    return Merge("task_arithmetic", ("/models/tools",), "/models/base", fixed={"weight": weight})


def task_scores(
    values: Sequence[Any], metric: str = "exact_match", *, items: Sequence[str] | None = None
) -> TaskScores:
    """Scores whose aggregate is their mean, with lm-eval's standard error of it."""
    ids = tuple(items) if items is not None else tuple(f"item{i}" for i in range(len(values)))
    mean = float(np.mean(values))
    stderr = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return TaskScores(ids, {metric: tuple(values)}, {metric: Estimate(mean, stderr)})


def outcome(name: str, split: Split, rates: Sequence[float] | None = None, **tasks: Any) -> Outcome:
    """Exact matches at the given rates, drawn by name and split."""
    rates = rates or RATES[name]
    rng = np.random.default_rng([SPLITS.index(split), *name.encode()])
    scores = {
        task: task_scores(
            (rng.random(ITEMS[split]) < rate).astype(float).tolist(),
            items=[f"{split}-{task}-{i}" for i in range(ITEMS[split])],
        )
        for task, rate in zip(TASKS, rates, strict=True)
    }
    return Outcome({**scores, **tasks}, cost=Cost(0.5, 1.0, 3 * ITEMS[split], 7), worker="here/1")


def record(store: Store, name: str, split: Split, kind: str, found: Outcome | None = None) -> None:
    """Record an outcome; a `winner` is a finalist that is chosen."""
    trial = kind in ("finalist", "winner")
    number = int(name.split()[1]) if trial else None
    job = Job(Entry(name, recipe(), number, "trial" if trial else kind), split)
    store.record(job, found or outcome(name, split))
    if kind == "winner":
        store.choose(job.entry, "the best of 2 finalists")


def tell(
    store: Store, number: int, found: Outcome, estimates: Sequence[float] | None = None
) -> None:
    """Ask for a trial and tell what came of it; `estimates`: it was given up early."""
    candidate = Entry(f"trial {number}", recipe(number / 10), number)
    store.asked(candidate, {"weight": number / 10}, {"weight": FloatDistribution(0.0, 1.0)})
    values = estimates
    if found.failure is None and values is None:
        values = [s.values["exact_match"].value for s in found.scores.values()]
        if store.campaign.mode == "mean":
            values = [float(np.mean(values))]
    store.told(candidate, found, values, pruned=estimates is not None)


def fill(store: Store, *, until: Split = "holdout") -> None:
    """Play a campaign in the order in which it is run."""
    for name, kind in KINDS.items():
        record(store, name, "search", kind)
    for number in range(3):
        tell(store, number, outcome(f"trial {number}", "search"))
    tell(store, 3, Outcome(failure=Failure(FailureKind.NOT_FINITE, "NaN in layer 3")))
    if until == "search":
        return
    for name, kind in KINDS.items():
        record(store, name, "select", kind)
    for name in ("trial 1", "trial 2"):
        record(store, name, "select", "finalist")
    if until == "select":
        return
    for name, kind in KINDS.items():
        if name != "task arithmetic λ=0.8":
            record(store, name, "holdout", kind)
    record(store, "trial 1", "holdout", "winner")


FACTS: Mapping[str, Any] = {
    "versions": {"evomerge": "0.1.0", "lm_eval": "0.4.13"},
    "prompts": {task: f"{index:x}0ff" for index, task in enumerate(TASKS)},
    "higher_is_better": {task: {"exact_match": True} for task in TASKS},
}


def make_aims(
    objectives: Sequence[Mapping[str, Any]],
    split: Split = "select",
    *,
    down: Sequence[str] = ("ppl",),
    experts: Mapping[str, Outcome] | None = None,
    **changes: Any,
) -> Objectives:
    """Return a campaign's objectives; less is better of the metrics in `down`."""
    campaign = make_campaign(Path("results"), objectives=list(objectives), **changes)
    references = References(experts=experts or {})
    return Objectives(campaign, references, split, lambda _, metric: metric not in down)


MakeStore = Callable[..., Store]


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[MakeStore]:
    """Open new results folders: `make_store(facts=..., **changes to the campaign)`."""
    with ExitStack() as opened:
        count = 0

        def make(facts: Mapping[str, Any] = FACTS, **changes: Any) -> Store:
            nonlocal count
            count += 1
            campaign = make_campaign(tmp_path / f"results{count}", **changes)
            directions = ["maximize"] * (
                len(campaign.objectives) if campaign.mode == "pareto" else 1
            )
            store = Store.create(Path(campaign.out), campaign, facts, directions=directions)
            return opened.enter_context(store)

        yield make


@pytest.fixture
def lab() -> SimpleNamespace:
    """The functions above: what one test module cannot import from another."""
    return SimpleNamespace(
        tasks=TASKS,
        items=ITEMS,
        aims=make_aims,
        facts=FACTS,
        fill=fill,
        outcome=outcome,
        recipe=recipe,
        record=record,
        task_scores=task_scores,
        tell=tell,
    )


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A finished campaign, for reading only."""
    campaign = make_campaign(tmp_path_factory.mktemp("finished") / "results")
    folder = Path(campaign.out)
    with Store.create(folder, campaign, FACTS, directions=["maximize"]) as made:
        fill(made)
        yield made
