"""What travels between the driver and its workers: frozen values, and nothing that computes.

A `Job` asks for a candidate's scores on one split; an `Outcome` answers with per-item scores or with
a typed failure. Everything pickles small: recipes and numbers, never tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from evomerge.recipe import Recipe

Split = Literal["search", "select", "holdout"]
SPLITS: tuple[Split, ...] = ("search", "select", "holdout")


@dataclass(frozen=True)
class Candidate:
    """A recipe with the number of the trial that asked for it.

    Attributes:
        name: What reports call it: `trial 17`, `base`, `uniform average`.
        recipe: Everything needed to rebuild the model.
        number: The trial's number from 0; None for parents and baselines, which are no trials.
    """

    name: str
    recipe: Recipe
    number: int | None = None


@dataclass(frozen=True)
class Job:
    """One evaluation: a candidate, scored on all items of one split.

    Attributes:
        candidate: What to build.
        split: Which items to score it on.
        metrics: Per task, the metrics wanted; empty: those that the objectives search or report.
    """

    candidate: Candidate
    split: Split
    metrics: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Estimate:
    """An aggregate over items, as lm-eval computes it.

    Attributes:
        value: The metric's aggregate.
        stderr: lm-eval's standard error of it; None where lm-eval has none.
    """

    value: float
    stderr: float | None = None


@dataclass(frozen=True)
class TaskScores:
    """Scores of one candidate on the items of one task.

    Attributes:
        items: Stable ids, in the order of the per-item values.
        metrics: Metric (`exact_match`, or `exact_match,FILTER` for a filter other than the task's only
            one) → one value an item; a number wherever the metric has one per item, otherwise what
            lm-eval hands to its aggregation.
        values: Metric → aggregate over `items`.
        truncated: How many items were longer than the model's context and were cut as lm-eval cuts.
    """

    items: tuple[str, ...]
    metrics: Mapping[str, tuple[Any, ...]]
    values: Mapping[str, Estimate]
    truncated: int = 0


class FailureKind(StrEnum):
    """Why a candidate has no scores."""

    OUT_OF_MEMORY = "out of memory"
    NOT_FINITE = "not finite"
    COLLAPSED = "collapsed"
    MERGE = "merge"
    TASK = "task"
    WORKER = "worker"


@dataclass(frozen=True)
class Failure:
    """A recorded state, never a made-up score.

    Attributes:
        kind: The type.
        reason: One line that says what happened.
    """

    kind: FailureKind
    reason: str


@dataclass(frozen=True)
class Cost:
    """What an evaluation took.

    Attributes:
        merge_seconds: Writing the weights into the live model.
        score_seconds: Scoring, forward passes and metrics.
        items: Items scored.
        generated_tokens: Tokens that were generated (0 where nothing is).
    """

    merge_seconds: float = 0.0
    score_seconds: float = 0.0
    items: int = 0
    generated_tokens: int = 0


@dataclass(frozen=True)
class Outcome:
    """What came of a job: `scores` of every task, or a `failure`.

    Attributes:
        scores: Task → scores; empty after a failure.
        failure: None when all went well.
        cost: What it took, failures too.
        worker: Who did it, such as `node/pid`.
    """

    scores: Mapping[str, TaskScores] = field(default_factory=dict)
    failure: Failure | None = None
    cost: Cost = field(default_factory=Cost)
    worker: str = ""
