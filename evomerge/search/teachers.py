"""The teachers of a campaign: which expert is the target of a task's loss, and what it says, as bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

import numpy as np
from safetensors.numpy import load, save

from evomerge.candidate.trial import Entry, Split, Target, TargetJob, Targets
from evomerge.config import Campaign
from evomerge.store import Evaluation


def teacher_jobs(
    campaign: Campaign,
    evaluations: tuple[Evaluation, ...],
    higher_is_better: Callable[[str, str], bool],
    split: Split = "search",
    tasks: Collection[str] | None = None,
) -> list[TargetJob]:
    """Return a job for each of some objectives.

    Args:
        campaign: Its objectives say which loss, and may name the teacher; otherwise it is the expert that
            is best on the task's search items, the first of equals.
        evaluations: Those of the experts on `search`.
        higher_is_better: Task and metric → the metric's direction.
        split: Whose items the teacher reads; its word counts where it is wrong, too, unless on `search`.
        tasks: Those of the objectives; None: whose loss is not the gold answers' alone.
    """
    if tasks is None:
        tasks = [goal.task for goal in campaign.objectives if goal.loss != "gold"]
    experts = [
        Entry(one.name, one.candidate, role="expert")
        for one in evaluations
        if one.kind == "expert" and one.split == "search"
    ]
    scored = {one.key: one.outcome for one in evaluations if one.split == "search"}
    jobs = []
    for goal in campaign.objectives:
        if goal.task not in tasks:
            continue
        sign = 1 if higher_is_better(goal.task, goal.metric) else -1

        def value(
            one: Entry, task: str = goal.task, metric: str = goal.metric, s: int = sign
        ) -> float:
            scores = scored[one.key].scores
            return s * scores[task].values[metric].value if task in scores else -float("inf")

        named = [one for one in experts if goal.teacher in (None, one.name)]
        if named:
            teacher = max(named, key=value).candidate
            jobs.append(TargetJob(teacher, goal.task, split, mistaken=split != "search"))
    return jobs


def of_items(
    targets: Mapping[str, Targets], items: Mapping[str, tuple[int, ...]]
) -> dict[str, Targets]:
    """Return the targets of chosen items, task by task; tasks without any are left out."""
    return {
        task: [targets[task][item] for item in chosen]
        for task, chosen in items.items()
        if task in targets
    }


def gold_shares(campaign: Campaign) -> dict[str, float]:
    """Return task → share of the gold answer's loss beside the teacher's, as `GradientJob` takes it."""
    return {goal.task: 0.5 for goal in campaign.objectives if goal.loss == "both"}


def key_of(job: TargetJob) -> str:
    """Return under which key of a store's arrays the answer to a job is kept."""
    return f"targets:{job.task}" + ("" if job.split == "search" else f" on {job.split}")


def to_bytes(targets: Targets) -> bytes:
    """Return targets as a safetensors file: all items' numbers in one row, their shapes, who has tokens."""
    there = [one for one in targets if one is not None]
    shapes = [(0, 0) if one is None else one.logprobs.shape for one in targets]
    parts: dict[str, np.ndarray] = {"shapes": np.array(shapes, dtype=np.int32).reshape(-1, 2)}
    named = [one is not None and one.tokens is not None for one in targets]
    parts["named"] = np.array(named, dtype=np.bool_)
    parts["logprobs"] = _flat([one.logprobs for one in there], np.float16)
    parts["tokens"] = _flat([one.tokens for one in there if one.tokens is not None], np.int32)
    parts["rest"] = _flat([one.rest for one in there if one.rest is not None], np.float16)
    return bytes(save(parts))


def from_bytes(content: bytes) -> tuple[Target | None, ...]:
    """Return the targets of `to_bytes`; of earlier ones, all or none had tokens."""
    parts = load(content)
    shapes = parts["shapes"].tolist()
    named = parts.get("named", np.full(len(shapes), len(parts["tokens"]) > 0)).tolist()
    at = dict.fromkeys(("logprobs", "tokens", "rest"), 0)

    def taken(name: str, *shape: int) -> np.ndarray:
        begin = at[name]
        at[name] += math.prod(shape)
        return parts[name][begin : at[name]].reshape(shape)

    found: list[Target | None] = []
    for (positions, count), tokens in zip(shapes, named, strict=True):
        if not positions:
            found.append(None)
            continue
        logprobs = taken("logprobs", positions, count)
        of_tokens = (taken("tokens", positions, count), taken("rest", positions)) if tokens else ()
        found.append(Target(logprobs, *of_tokens))
    return tuple(found)


def _flat(parts: list[np.ndarray], dtype: type) -> np.ndarray:
    if not parts:
        return np.zeros(0, dtype)
    return np.concatenate([part.reshape(-1) for part in parts]).astype(dtype)
