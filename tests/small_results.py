"""A results folder in a moment: one objective, one trial, scores as they are given; nothing is merged."""

from __future__ import annotations

from pathlib import Path

from optuna.distributions import FloatDistribution

from evomerge.candidate import Merge
from evomerge.candidate.trial import SPLITS, Entry, Estimate, Job, Outcome, TaskScores
from evomerge.config import Campaign
from evomerge.store import Store

TASK = "zoo_facts"


def write_results(
    folder: Path, *, expert: str = "facts", winner: bool = True, prompts: str = "a0ff"
) -> Path:
    """Write a campaign whose trial 0 is right on 3 of 4 items, its base on 1; no winner: unfinished."""
    campaign = Campaign.model_validate(
        {
            "name": "small",
            "models": {
                "base": "zoo:base",
                "experts": [{"model": "zoo:facts", "name": expert}, "zoo:tools"],
            },
            "space": {
                "method": "task_arithmetic",
                "parameters": {"weight": {"low": 0.0, "high": 1.0}},
            },
            "objectives": [{"task": TASK, "metric": "exact_match"}],
            "items": dict.fromkeys(SPLITS, 4),
            "search": {"trials": 1, "finalists": 1},
            "out": str(folder),
        }
    )
    facts = {
        "versions": {"lm_eval": "0.4.13"},
        "prompts": {TASK: prompts},
        "higher_is_better": {TASK: {"exact_match": True}},
    }
    own = {"weight": (((0.5,),),)}
    recipe = Merge("task_arithmetic", ("/models/facts",), "/models/base", own=own)
    base, trial = Entry("base", recipe, role="base"), Entry("trial 0", recipe, 0)
    with Store.create(folder, campaign, facts, directions=["maximize"]) as store:
        store.record(Job(base, "search"), scored("search", 1))
        store.record(Job(Entry(expert, recipe, role="expert"), "search"), scored("search", 2))
        store.asked(trial, {"weight": 0.5}, {"weight": FloatDistribution(0.0, 1.0)})
        store.told(trial, scored("search", 3), [0.75])
        if winner:
            for split in ("select", "holdout"):
                store.record(Job(base, split), scored(split, 1))
                store.record(Job(trial, split), scored(split, 3))
            store.choose(trial, "the only finalist")
    return folder


def scored(split: str, right: int) -> Outcome:
    """Return the outcome of a model that is right on so many of 4 items."""
    items = tuple(f"{split}-{number}" for number in range(4))
    matches = tuple(float(number < right) for number in range(4))
    return Outcome(
        {TASK: TaskScores(items, {"exact_match": matches}, {"exact_match": Estimate(right / 4)})}
    )
