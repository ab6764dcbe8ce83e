"""Whether campaigns may be compared at all: the same lm-eval, the same prompts, the same metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evomerge.errors import ResultsError
from evomerge.report.leaderboard import Leaderboard
from evomerge.report.rows import Goal
from evomerge.report.summary import Summary


def common_goals(
    leaderboards: Sequence[Leaderboard], labels: Sequence[str]
) -> tuple[tuple[Goal, ...], tuple[str, ...]]:
    """Return the objectives that all campaigns share, as the first has them, and the tasks left out.

    Values count as they are, not as shares of the best expert's, who may differ between campaigns.

    Args:
        leaderboards: Two or more.
        labels: What to call each.

    Raises:
        ResultsError: No task is shared; or the lm-eval version, a shared task's reported metric or its
            prompts differ. The message names what differs.
    """
    campaigns = [one.campaign for one in leaderboards]
    reports = [{goal.task: goal.report for goal in campaign.goals} for campaign in campaigns]
    shared = [task for task in reports[0] if all(task in known for known in reports)]
    if not shared:
        raise ResultsError(f"{labels[0]} and {', '.join(labels[1:])} have no task in common")
    for index in range(1, len(campaigns)):
        pair = (labels[0], labels[index])
        _refuse("the version of lm_eval", _lm_eval(campaigns[0]), _lm_eval(campaigns[index]), pair)
        for task in shared:
            mine, theirs = reports[0][task], reports[index][task]
            _refuse(f'the reported metric of task "{task}"', mine, theirs, pair)
        first, other = campaigns[0].prompts, campaigns[index].prompts
        for task in sorted(first.keys() & other.keys()):
            _refuse(f'the hash of the prompts of task "{task}"', first[task], other[task], pair)
    every = dict.fromkeys(task for known in reports for task in known)
    goals = tuple(
        replace(goal, normalized=False) for goal in campaigns[0].goals if goal.task in shared
    )
    return goals, tuple(task for task in every if task not in shared)


def unique_labels(labels: Sequence[str]) -> list[str]:
    """Number the repetitions: `a`, `a #2`."""
    seen: dict[str, int] = {}
    unique = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        unique.append(label if seen[label] == 1 else f"{label} #{seen[label]}")
    return unique


def _lm_eval(campaign: Summary) -> str:
    return campaign.versions.get("lm_eval", "unknown")


def _refuse(what: str, mine: str, theirs: str, labels: tuple[str, str]) -> None:
    if mine != theirs:
        raise ResultsError(
            f"cannot be compared: {what} is {mine} in {labels[0]} and {theirs} in {labels[1]}; "
            "run one of them again under the settings of the other"
        )
