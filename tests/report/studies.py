"""Small studies of every sort as reports meet them, with workers and times; nothing is merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import FloatDistribution

from evomerge.candidate import Candidate, Coefficients, Merge, Mixture, PathStep, Size, Stack
from evomerge.candidate.cost import Cost
from evomerge.candidate.ensemble import Ensemble, Mix, Router
from evomerge.candidate.gates import Gates
from evomerge.candidate.timing import Timing
from evomerge.candidate.trial import (
    Entry,
    Estimate,
    Failure,
    FailureKind,
    Gradients,
    Job,
    Outcome,
    Pruned,
    Split,
    TaskScores,
)
from evomerge.config import Campaign
from evomerge.store import Store

TASKS = ("zoo_tools", "zoo_facts")
EXPERTS = ("tools", "facts")
METRIC = "exact_match"
ITEMS: dict[Split, int] = {"search": 20, "select": 20, "holdout": 40}
BEGAN = 1.7e9
RANGE = FloatDistribution(-0.5, 2.0)
NAMES = ("weight/tools/0-2", "weight/tools/2-4", "weight/facts/0-2", "weight/facts/2-4")
FACTS: Mapping[str, Any] = {
    "versions": {"evomerge": "0.1.0", "lm_eval": "0.4.13"},
    "higher_is_better": {task: {METRIC: True} for task in TASKS},
    "size": {"layers": [10, 10, 10, 10], "rest": 10, "feed_forward": [5, 5, 5, 5], "adapters": {}},
}


SIZE = Size.from_json(FACTS["size"])


def merge(weights: Sequence[float] = (0.1, 0.2, 0.3, 0.4), **more: Any) -> Merge:
    """Two experts, two groups of layers; weights as `NAMES`."""
    own = tuple(((weights[group], weights[2 + group]),) for group in range(2))
    return Merge(
        "task_arithmetic",
        ("/m/tools", "/m/facts"),
        "/m/base",
        groups=((0, 2), (2, 4)),
        own={"weight": own},
        **more,
    )


def by_row() -> Merge:
    """A merge whose weights differ by row: 0, 1 and 2 more for the first expert, in one tensor."""
    added = np.array([[0.0, 1.0, 2.0], [0.5, 0.5, 0.5]], dtype=np.float32)
    tables = {"model.layers.2.mlp.up_proj.weight": added}
    return merge(components=("mlp",), coefficients=Coefficients(tables))


def parents() -> dict[str, Merge]:
    """The experts as members."""
    return {name: Merge("passthrough", (f"/m/{name}",)) for name in EXPERTS}


def stack() -> Stack:
    """Three layers of two experts."""
    path = (PathStep("tools", 0), PathStep("facts", 2), PathStep("tools", 3, 0.5))
    return Stack("/m/base", parents(), path)


def winner_of(kind: str) -> Candidate:
    """What wins in a study of that kind."""
    members = parents()
    return {
        "routed": lambda: Ensemble("/m/base", members, router=Router(2)),
        "mixed": lambda: Ensemble(
            "/m/base", members, mix=Mix({"tools": 1.0, "facts": 3.0}, top_k=2)
        ),
        "stack": stack,
        "tradeoff": stack,
        "mixture": lambda: Mixture(
            "/m/base",
            merge(),
            members,
            fit=Gates.of(
                {0: np.ones((2, 3), np.float32)}, accuracy=np.array([[0.9, 0.75]], np.float32)
            ),
        ),
        "rows": by_row,
    }.get(kind, merge)()


def outcome(
    split: Split,
    right: Sequence[int],
    began: float | None = BEGAN,
    seconds: float = 1.0,
    **more: Any,
) -> Outcome:
    """Scores of a model that is right on so many of each task's items."""
    count = more.pop("count", ITEMS[split])
    scores = {}
    for task, hits in zip(TASKS, right, strict=True):
        values = tuple(float(place < hits) for place in range(count))
        ids = tuple(f"{split}-{task}-{place}" for place in range(count))
        scores[task] = TaskScores(ids, {METRIC: values}, {METRIC: Estimate(hits / count)})
    cost = Cost(0.25 * seconds, 0.75 * seconds, 2 * count, began=began)
    return Outcome(scores, **{"cost": cost, "worker": "node/1", **more})


def create(
    folder: Path, *, trials: int = 30, facts: Mapping[str, Any] = FACTS, **changes: Any
) -> Store:
    """Begin a campaign of two tasks and two experts."""
    data: dict[str, Any] = {
        "name": "two",
        "models": {"base": "/m/base", "experts": ["/m/tools", "/m/facts"]},
        "space": {
            "method": "task_arithmetic",
            "layers": 2,
            "parameters": {"weight": {"low": -0.5, "high": 2.0}},
        },
        "objectives": [{"task": task, "metric": METRIC} for task in TASKS],
        "items": dict(ITEMS),
        "search": {"trials": trials, "finalists": 2},
        "out": str(folder),
    }
    campaign = Campaign.model_validate({**data, **changes})
    values = {"mean": 1, "pareto": 2, "tradeoff": 1}[campaign.mode]
    directions = ["maximize"] * values
    directions += ["minimize"] * (0 if campaign.mode == "mean" else len(campaign.costs))
    return Store.create(folder, campaign, facts, directions=directions)


def record(
    store: Store, name: str, role: str, split: Split, right: Sequence[int], **more: Any
) -> None:
    """Record a parent or a naive merge."""
    model = Merge("passthrough", (f"/m/{name}",)) if role != "baseline" else merge((0.5,) * 4)
    store.record(Job(Entry(name, model, role=role), split), outcome(split, right, **more))


def known(store: Store, split: Split) -> None:
    """Record base, experts and a naive merge."""
    share = ITEMS[split] // 20
    begun = BEGAN - 100 if split == "search" else BEGAN + 1_000
    timing = Timing(10.0, 10.0, 1.0, 0.0, 15)
    record(store, "base", "base", split, (2 * share, 3 * share), began=begun, timing=timing)
    record(store, "tools", "expert", split, (16 * share, 2 * share), began=begun + 1)
    record(store, "facts", "expert", split, (3 * share, 15 * share), began=begun + 2)
    record(store, "uniform average", "baseline", split, (9 * share, 10 * share), began=begun + 3)


def tell(
    store: Store,
    number: int,
    found: Outcome,
    *,
    candidate: Candidate | None = None,
    values: Sequence[float] | None = None,
) -> None:
    """Ask for a trial at a point drawn by its number, and tell what came of it."""
    rng = np.random.default_rng(number)
    params = dict(zip(NAMES, rng.uniform(-0.5, 2.0, len(NAMES)).tolist(), strict=True))
    entry = Entry(f"trial {number}", candidate or merge(tuple(params.values())), number)
    store.asked(entry, params, dict.fromkeys(NAMES, RANGE))
    if values is None and found.failure is None:
        own = [scores.values[METRIC].value for scores in found.scores.values()]
        values = own if store.campaign.mode == "pareto" else [float(np.mean(own))]
        if store.campaign.mode == "tradeoff":
            values = [*values, entry.candidate.size(SIZE)]
    store.told(entry, found, values, pruned=found.pruned is not None)


def some_trials(store: Store, kind: str, until: int = 30) -> None:
    """Tell trials of two workers: each a second, every fifth pruned, trial 7 failed; then a step."""
    for number in range(until):
        began = BEGAN + number // 2
        if kind == "interrupted" and number >= until // 2:
            began += 5_000
        more: dict[str, Any] = {"began": began, "worker": f"node/{number % 2}"}
        found = outcome("search", (4 + number % 13, 5 + number % 7), **more)
        if number % 5 == 4:
            found = outcome(
                "search", (2, 2), count=5, pruned=Pruned("trial 0 is better", 1), **more
            )
        if number == 7:
            cost = Cost(0.25, 0.25, 3, began=began)
            failure = Failure(FailureKind.NOT_FINITE, "NaN in <layer> 3")
            found = Outcome(failure=failure, cost=cost, worker="node/1")
        tell(store, number, found, candidate=winner_of(kind) if number == 12 else None)
    store.gradient_asked(0, 0, {TASKS[0]: (0, 1)}, dict.fromkeys(NAMES, 0.5))
    done = Gradients(1.5, cost=Cost(0.5, 1.5, 2, began=BEGAN + until // 2), worker="node/0")
    store.gradient_told(0, 0, 1.5, dict.fromkeys(NAMES, 0.1), None, 6, done)


def write(folder: Path, kind: str = "merge", **changes: Any) -> Store:
    """Write a study and return its open store.

    Args:
        folder: The results folder.
        kind: `merge`, `rows`, `routed`, `mixed`, `stack`, `mixture`: what wins. `empty`, `running` (in
            search), `interrupted` (and gone on with later), `pareto`, `tradeoff`.
        changes: To the campaign.
    """
    if kind in ("pareto", "tradeoff"):
        changes = {"mode": kind, **changes}
    if kind == "tradeoff":
        changes["costs"] = [{"cost": "parameters"}]
    store = create(folder, **changes)
    if kind == "empty":
        return store
    known(store, "search")
    some_trials(store, kind)
    if kind == "running":
        entry = Entry("trial 30", merge(), 30)
        store.asked(entry, dict.fromkeys(NAMES, 0.5), dict.fromkeys(NAMES, RANGE))
        return store
    known(store, "select")
    for number, right in ((12, (17, 15)), (11, (15, 11))):
        candidate = winner_of(kind) if number == 12 else merge()
        finalist = Entry(f"trial {number}", candidate, number)
        store.record(Job(finalist, "select"), _routed(outcome("select", right), kind, number))
    known(store, "holdout")
    chosen = Entry("trial 12", winner_of(kind), 12)
    found = _routed(outcome("holdout", (33, 29), began=BEGAN + 2_000), kind, 12)
    store.record(Job(chosen, "holdout"), found)
    store.choose(chosen, "the best of 2 finalists")
    store.finish()
    return store


def _routed(found: Outcome, kind: str, number: int) -> Outcome:
    if kind != "routed" or number != 12:
        return found
    count = len(found.scores[TASKS[0]].items)
    routes = {TASKS[0]: (0,) * count, TASKS[1]: (0,) * (count // 4) + (1,) * (count - count // 4)}
    timing = Timing(20.0, 10.0, 2.0, 0.1, 15)
    return replace(found, routes=routes, read=dict.fromkeys(TASKS, (10, 30)), timing=timing)
