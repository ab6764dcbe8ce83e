"""Candidates whose members answer items apart: who answered what, and which answers are known already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evomerge.candidate.trial import Job, TaskScores
from evomerge.kinds import Assignment


def routes_of(parts: Sequence[Assignment], members: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return task → of each item which of the members answers it, by position among them."""
    found: dict[str, dict[int, int]] = {}
    for part in parts:
        for task, positions in part.positions.items():
            found.setdefault(task, {}).update(dict.fromkeys(positions, members.index(part.member)))
    return {task: tuple(own[n] for n in sorted(own)) for task, own in found.items()}


def tokens_read(
    routes: Mapping[str, Sequence[int]],
    prompts: Mapping[str, Sequence[Sequence[int]]],
    members: int,
) -> dict[str, tuple[int, ...]]:
    """Return task → how many tokens of its prompts each member reads.

    Args:
        routes: Task → of each item which member answers it.
        prompts: Task → tokens of each item's prompt.
        members: How many there are.
    """
    found = {}
    for task, chosen in routes.items():
        counts = [0] * members
        for member, prompt in zip(chosen, prompts[task], strict=True):
            counts[member] += len(prompt)
        found[task] = tuple(counts)
    return found


def known_scores(job: Job, part: Assignment) -> Mapping[str, TaskScores]:
    """Return the scores of the member that answers a part, of the tasks of which all metrics are known."""
    known = job.scored.get(part.member, {})
    return {
        task: known[task]
        for task in part.positions
        if task in known and known[task].metrics.keys() >= set(job.metrics[task])
    }
