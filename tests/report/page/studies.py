"""Results folders to make pages of, in a moment: scores drawn at given rates, texts as given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from optuna.distributions import FloatDistribution

from evomerge.candidate import Candidate, Merge
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
from evomerge.store import Store, keep_texts

HOSTILE = (
    "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=2></style>"
    "<!-- {{ 7*191 }} {% endraw %} <b onclick=window.pwned=3>&lt;\u2028 ' \" ]]>"
)
TASKS = ("zoo_extraction", "zoo_facts")
PARENTS = {
    "base": ("base", 0.1),
    "extraction": ("expert", 0.6),
    "facts": ("expert", 0.5),
    "uniform average": ("baseline", 0.65),
}
BEGAN = 1_790_000_000.0


def write_study(
    folder: Path,
    *,
    until: Literal["parents", "search", "select", "holdout"] = "holdout",
    name: str = "small",
    tasks: Sequence[str] = TASKS,
    items: int = 30,
    text: str = "",
    expert: str = "extraction",
    candidate: Candidate | None = None,
    routes: bool = False,
    trials: int = 6,
    **changes: Any,
) -> Path:
    """Play a campaign up to a stage; `holdout`: to its end.

    Args:
        folder: The results folder.
        until: What is scored last.
        name: Of the campaign.
        tasks: Of the objectives.
        items: A task and split.
        text: Stands in every prompt, answer and reason.
        expert: What the first expert is called.
        candidate: What every trial tries; default a merge.
        routes: The winner's members answer apart.
        trials: Without the one that fails.
        changes: To the campaign.
    """
    campaign = _campaign(folder, name, tasks, items, expert, changes)
    ids = {split: [f"{split}-{i}" for i in range(items)] for split in SPLITS}
    facts = {
        "versions": {"evomerge": "0.1.0", "lm_eval": "0.4.13"},
        "models": {"base": "ab" * 32, f"expert:{expert}": "cd" * 32},
        "prompts": dict.fromkeys(tasks, "ef" * 32),
        "higher_is_better": {task: {"exact_match": True} for task in tasks},
        "items": dict.fromkeys(tasks, ids),
    }
    count = len(tasks) if campaign.mode == "pareto" else 1
    with Store.create(folder, campaign, facts, directions=["maximize"] * count) as store:
        for split in SPLITS:
            asked = [(f"{text} question {item}\nAnswer:", f"gold {item}") for item in range(items)]
            keep_texts(store.arrays, split, dict.fromkeys(tasks, asked))
        stages: tuple[Split, ...] = SPLITS[: {"parents": 1, "search": 1, "select": 2}.get(until, 3)]
        tried = candidate or recipe(0.5)
        entries = [Entry(f"trial {number}", tried, number) for number in range(trials + 1)]
        for split in stages:
            for parent, (role, rate) in PARENTS.items():
                called = expert if parent == "extraction" else parent
                job = Job(Entry(called, recipe(0.1), role=role), split)
                store.record(job, scored(tasks, split, items, rate, parent, text))
            if split == "search" and until != "parents":
                _search(store, entries, tasks, items, text)
            if split == "select":
                store.record(Job(entries[1], split), scored(tasks, split, items, 0.9, "1", text))
        if until == "holdout":
            store.choose(entries[1], "the best of 1 finalist on the select items")
            found = scored(tasks, "holdout", items, 0.9, "1", text)
            if routes:
                found = replace(found, routes=dict.fromkeys(tasks, (0, 1) * (items // 2)))
            store.record(Job(entries[1], "holdout"), found)
            store.end("trials")
            store.finish()
    return folder


def recipe(weight: float) -> Merge:
    models = ("/models/extraction", "/models/facts")
    return Merge("task_arithmetic", models, "/models/base", fixed={"weight": weight})


def scored(
    tasks: Sequence[str], split: Split, items: int, rate: float, seed: str, text: str = ""
) -> Outcome:
    """Return exact matches at a rate, with answers."""
    rng = np.random.default_rng([SPLITS.index(split), *seed.encode()])
    scores = {}
    for task in tasks:
        right = (rng.random(items) < rate).astype(float)
        scores[task] = TaskScores(
            tuple(f"{split}-{item}" for item in range(items)),
            {"exact_match": tuple(right.tolist())},
            {"exact_match": Estimate(float(right.mean()), 0.01)},
            answers=tuple(
                f"gold {item}" if good else f"{text} wrong {seed}"
                for item, good in enumerate(right)
            ),
        )
    cost = Cost(0.5, 1.0, items * len(tasks), 7, began=BEGAN + 2.0 * int(rng.integers(1000)))
    return Outcome(scores, cost=cost, worker="here/1")


def _campaign(
    folder: Path,
    name: str,
    tasks: Sequence[str],
    items: int,
    expert: str,
    changes: Mapping[str, Any],
) -> Campaign:
    data: dict[str, Any] = {
        "name": name,
        "models": {
            "base": "zoo:base",
            "experts": [{"model": "zoo:extraction", "name": expert}, "zoo:facts"],
        },
        "space": {
            "method": "task_arithmetic",
            "parameters": {"weight": {"low": 0.0, "high": 1.0}},
        },
        "objectives": [{"task": task, "metric": "exact_match"} for task in tasks],
        "items": dict.fromkeys(SPLITS, items),
        "search": {"sampler": "cmaes", "trials": 20, "finalists": 1},
        "out": str(folder),
    }
    return Campaign.model_validate({**data, **changes})


def _search(
    store: Store, entries: Sequence[Entry], tasks: Sequence[str], items: int, text: str
) -> None:
    for number, entry in enumerate(entries):
        point = {"weight": (number + 1) / (len(entries) + 1)}
        store.asked(entry, point, {"weight": FloatDistribution(0.0, 1.0)})
        if entry is entries[-1]:
            failure = Failure(FailureKind.NOT_FINITE, f"NaN in layer 3 {text}", f"Traceback {text}")
            store.told(entry, Outcome(failure=failure, cost=Cost(0.5, began=BEGAN)), None)
            continue
        found = scored(tasks, "search", items, 0.3 + 0.5 * point["weight"], str(number), text)
        values = [one.values["exact_match"].value for one in found.scores.values()]
        if store.campaign.mode != "pareto":
            values = [float(np.mean(values))]
        store.told(entry, found, values)
