"""What travels between the driver and its workers: frozen values, and nothing that computes.

A `Job` asks for a candidate's scores on one split; an `Outcome` answers with per-item scores or with
a typed failure. A `GradientJob` asks for the gradient of a candidate's loss by its numbers; `Gradients`
answer. A `TargetJob` asks for what a teacher says of a task's items; `TargetsFound` answer. Everything
pickles small: candidates and numbers, never tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

import numpy as np

from evomerge.candidate import Candidate
from evomerge.candidate.cost import Cost
from evomerge.candidate.merge import Own
from evomerge.candidate.tables import Array
from evomerge.candidate.timing import Timing

Split = Literal["search", "select", "holdout"]
SPLITS: tuple[Split, ...] = ("search", "select", "holdout")


def row_key(role: str, name: str, number: int | None = None) -> str:
    """Return the identity of a model in a campaign, whatever names its user chose.

    Args:
        role: `base`, `expert`, `baseline` or `finalist`; ignored for a trial.
        name: Among those of its role.
        number: Of a trial; None for rows that are not trials.

    Returns:
        `base`, `expert:NAME`, `baseline:NAME` or `trial:NUMBER`.
    """
    if number is not None:
        return f"trial:{number}"
    return "base" if role == "base" else f"{role}:{name}"


def row_name(key: str) -> str:
    """Return what reports call the model of a `row_key`."""
    role, _, name = key.partition(":")
    return f"trial {name}" if role == "trial" else name or role


@dataclass(frozen=True)
class Entry:
    """A candidate as it enters a campaign: what reports call it, and its part there.

    Attributes:
        name: What reports call it: `trial 17`, `base`, `uniform average`.
        candidate: Everything needed to rebuild the model.
        number: The trial's number from 0; None for parents and baselines.
        role: `base`, `expert` or `baseline` of rows that are not trials; `finalist` of what was made of
            them when an expert joined or left.
    """

    name: str
    candidate: Candidate
    number: int | None = None
    role: str = "trial"

    @property
    def key(self) -> str:
        """Its identity, as `row_key` returns it."""
        return row_key(self.role, self.name, self.number)

    @property
    def recipe(self) -> Candidate:
        """What `evomerge.merge` takes."""
        return self.candidate


@dataclass(frozen=True)
class Race:
    """What a candidate is up against: it is scored block by block, and given up once it cannot win.

    Attributes:
        metrics: Task → the searched metric.
        weights: Task → share in the weighted mean.
        signs: Task → 1 where a higher value is better, -1 where a lower one is.
        best: Task → the best value that an item can have.
        expected: Task → per item, the value that a good model is expected to have. A poor guess saves
            less; it never makes an error likelier.
        spread: Task → standard deviation of good models about it; a guess, too.
        blocks: Into how many blocks the items are cut.
        seed: With `number`, draws the order of the items.
        number: Of the trial.
        rivals: Task → per-item values of the metric, one mapping for each incumbent.
        pareto: Whether each task is an objective of its own, not the weighted mean.
        alpha: Probability of giving up a candidate that is as good as its rivals on all items.
    """

    metrics: Mapping[str, str]
    weights: Mapping[str, float]
    signs: Mapping[str, int]
    best: Mapping[str, float]
    expected: Mapping[str, tuple[float, ...]]
    spread: Mapping[str, float]
    blocks: int = 8
    seed: int = 0
    number: int = 0
    rivals: tuple[Mapping[str, tuple[float, ...]], ...] = ()
    pareto: bool = False
    alpha: float = 0.1


@dataclass(frozen=True, eq=False)
class Target:
    """What a teacher says at each scored position of one item, in the order in which they are read.

    Attributes:
        logprobs: Log-probabilities, float16 `[positions, k]`; of a multiple-choice item one row over its
            choices.
        tokens: Which tokens they are of, int32 `[positions, k]`, the k likeliest; None: all, in order.
        rest: Logarithm of what all other tokens share, float16 `[positions]`; None where `tokens` is.
    """

    logprobs: np.ndarray[Any, np.dtype[np.float16]]
    tokens: np.ndarray[Any, np.dtype[np.int32]] | None = None
    rest: np.ndarray[Any, np.dtype[np.float16]] | None = None


Values = Mapping[str, Sequence[float]]
"""Task → a value for each of its items."""
Targets = Sequence[Target | None]
"""One an item with a gold answer; None where the teacher itself is wrong, so that its word is not taken."""


@dataclass(frozen=True)
class Job:
    """One evaluation: a candidate, scored on the items of one split.

    Attributes:
        entry: What to build.
        split: Which items to score it on.
        metrics: Per task, the metrics wanted; empty: those that the objectives search or report.
        race: None: all items are scored. Only on `search`: the other splits stay unbiased.
        targets: Task → what its teacher says of each of the split's items, wrong or not; needed where
            `teacher_divergence` is asked for.
        known: Member of the candidate → task → of each search item, in their order, the value of the
            searched metric, signed so that more is better; for what a candidate learns.
        scored: Member of the candidate → task → its scores on the split, so that nothing is scored twice.
        timed: Whether it is timed beside the base, too.
        answers: Whether its answers are wanted, too.
        noise: Seed of the noise that takes the place of the experts' task vectors, of the same norms; None:
            they are as they are.

    Raises:
        ValueError: A race on another split.
    """

    entry: Entry
    split: Split
    metrics: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    race: Race | None = None
    targets: Mapping[str, Targets] = field(default_factory=dict)
    known: Mapping[str, Values] = field(default_factory=dict)
    scored: Mapping[str, Mapping[str, TaskScores]] = field(default_factory=dict)
    timed: bool = False
    answers: bool = False
    noise: int | None = None

    def __post_init__(self) -> None:
        if self.race is not None and self.split != "search":
            raise ValueError(f"{self.entry.name}: no race on {self.split}, only on search")


@dataclass(frozen=True, slots=True)
class Estimate:
    """An aggregate over items, as lm-eval computes it.

    Attributes:
        value: The metric's aggregate.
        stderr: lm-eval's standard error of it; None where lm-eval has none.
    """

    value: float
    stderr: float | None = None


@dataclass(frozen=True, slots=True)
class TaskScores:
    """Scores of one candidate on the items of one task.

    Attributes:
        items: Stable ids, in the order of the per-item values.
        metrics: Metric (`exact_match`, or `exact_match,FILTER` for a filter other than the task's only
            one) → one value an item; a number wherever the metric has one per item, otherwise what
            lm-eval hands to its aggregation.
        values: Metric → aggregate over `items`.
        truncated: How many items were longer than the model's context and were cut as lm-eval cuts.
        answers: What it wrote on each item, before any filter, or the choice that it finds likeliest; empty
            where that is not asked for.
    """

    items: tuple[str, ...]
    metrics: Mapping[str, tuple[Any, ...]]
    values: Mapping[str, Estimate]
    truncated: int = 0
    answers: tuple[str, ...] = field(default=(), compare=False)


def without_answers(scores: Mapping[str, TaskScores]) -> dict[str, TaskScores]:
    """Return scores by task as they are apart from the answers."""
    return {task: replace(one, answers=()) for task, one in scores.items()}


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
        trace: The traceback of the exception behind it; empty where there is none.
    """

    kind: FailureKind
    reason: str
    trace: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True)
class Pruned:
    """Why a race was stopped before all items were scored.

    Attributes:
        reason: One line that says what happened.
        blocks: Blocks that were scored.
        rival: Which of the race's rivals is significantly better.
    """

    reason: str
    blocks: int
    rival: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a job: `scores` of every task, or a `failure`.

    Attributes:
        scores: Task → scores; empty after a failure; of the items scored so far when `pruned`.
        failure: None when all went well.
        cost: What it took, failures too.
        worker: Who did it, such as `node/pid`.
        pruned: None when all items were scored.
        candidate: With what it has learnt, where it learns; it takes the place of the job's.
        routes: Task → of each item which of the candidate's `scored_members` answered it, by position;
            empty where one model answers all.
        read: Task → how many tokens of its items' prompts each of the `scored_members` has read; as `routes`.
        timing: How fast it is beside the base, where that was asked for.
    """

    scores: Mapping[str, TaskScores] = field(default_factory=dict)
    failure: Failure | None = None
    cost: Cost = field(default_factory=Cost)
    worker: str = ""
    pruned: Pruned | None = None
    candidate: Candidate | None = None
    routes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    read: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    timing: Timing | None = None


@dataclass(frozen=True)
class Jobs:
    """Evaluations that one worker does together; at least one."""

    each: tuple[Job, ...]


@dataclass(frozen=True)
class Outcomes:
    """What came of `Jobs`: an outcome for each of them, in their order, or a `failure` of the whole."""

    each: tuple[Outcome, ...] = ()
    failure: Failure | None = None

    @property
    def cost(self) -> Cost:
        """Of all of them."""
        return sum((outcome.cost for outcome in self.each), Cost())


@dataclass(frozen=True)
class TargetJob:
    """What a teacher says of the items of one task.

    Attributes:
        candidate: The teacher.
        task: The task or group.
        split: Whose items.
        mistaken: Whether its word is wanted also where it is wrong, as a metric needs it and a loss does not.
    """

    candidate: Candidate
    task: str
    split: Split = "search"
    mistaken: bool = False

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"the teacher of {self.task}"


@dataclass(frozen=True)
class TargetsFound:
    """What came of a `TargetJob`: `targets`, or a `failure`."""

    targets: tuple[Target | None, ...] = ()
    failure: Failure | None = None
    cost: Cost = field(default_factory=Cost)
    worker: str = ""


@dataclass(frozen=True)
class GradientJob:
    """One loss, and its gradient by every number of a candidate.

    The loss of an item with a target is `gold_share` of its gold answer's, and for the rest the
    Kullback-Leibler divergence from the teacher; that of another item is its gold answer's.

    Attributes:
        name: What messages call it: `descent 0, step 12`.
        candidate: Where the gradient is taken.
        items: Task → which of its search items that have a gold answer, by position among those, ascending.
            A task without items is left out.
        shares: Task → share of its mean item loss in the total.
        rows: Whether gradients by the weights of single rows are wanted, too.
        targets: Task → one for each of its `items`; a task that is left out has none.
        gold_shares: Task → share of the gold answer's loss where there is a target; default 0.
    """

    name: str
    candidate: Candidate
    items: Mapping[str, tuple[int, ...]]
    shares: Mapping[str, float]
    rows: bool = False
    targets: Mapping[str, Targets] = field(default_factory=dict)
    gold_shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many items it reads."""
        return sum(map(len, self.items.values()))


@dataclass(frozen=True)
class Gradients:
    """What came of a gradient job: a loss with its gradients, or a `failure`.

    Attributes:
        loss: Σ share · mean item loss, in nats.
        losses: Task → mean item loss.
        numbers: Parameter → gradients, [groups][components][experts] (1 where one number holds for all
            experts); empty after a failure.
        failure: None when all went well.
        cost: What it took.
        worker: Who did it.
        rows: Tensor → gradients by the weight of each row, float32 `[experts, rows]`, where they are wanted.
    """

    loss: float = 0.0
    losses: Mapping[str, float] = field(default_factory=dict)
    numbers: Mapping[str, Own] = field(default_factory=dict)
    failure: Failure | None = None
    cost: Cost = field(default_factory=Cost)
    worker: str = ""
    rows: Mapping[str, Array] = field(default_factory=dict)
