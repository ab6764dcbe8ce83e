"""What each part of the winner adds: winner minus ablation, paired item by item."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from evomerge.candidate import Candidate
from evomerge.candidate.ablation import Ablation
from evomerge.candidate.trial import Outcome
from evomerge.config import Campaign
from evomerge.explanation.explanation import Contribution, TestedGain
from evomerge.objective import Objectives
from evomerge.report.scores import mean_sign, paired
from evomerge.report.statistics import PairedTest, holm

MEAN = ""
"""Among the tasks of a part: the weighted mean."""


def contributions(
    aims: Objectives,
    winner: Candidate,
    whole: Outcome,
    ablations: Sequence[Ablation],
    outcome: Callable[[Candidate], Outcome | None],
    names: Mapping[str, str],
) -> tuple[Contribution, ...]:
    """Test what the winner loses without each part.

    Args:
        aims: Of the items.
        winner: The winner.
        whole: What it scored.
        ablations: It without each part.
        outcome: What a candidate scored.
        names: Model → what reports call it.
    """
    tests: dict[tuple[int, str], PairedTest] = {}
    for place, one in enumerate(ablations):
        left = outcome(one.candidate)
        if left is not None and left.failure is None and one.candidate != winner:
            for task, test in _tests(aims, whole, left).items():
                tests[place, task] = test
    tasks = [goal.task for goal in aims.campaign.objectives]
    unlike = [
        key for key in tests if len(tasks) > 1 or key[1] != MEAN
    ]  # the mean of one is that one
    corrected = dict(zip(unlike, holm([tests[key].p for key in unlike]), strict=True))
    gains = {
        key: TestedGain(test, corrected[key if key in corrected else (key[0], tasks[0])])
        for key, test in tests.items()
    }
    for place, one in enumerate(ablations):
        if one.candidate == winner:
            gains |= {(place, task): gain for task, gain in _nothing(aims, whole).items()}
    return tuple(
        Contribution(
            names.get(one.expert, one.expert),
            one.layers,
            one.tensors,
            gains.get((place, MEAN)),
            {task: gains.get((place, task)) for task in tasks},
            one.candidate == winner,
            _why(outcome(one.candidate)),
        )
        for place, one in enumerate(ablations)
    )


def _tests(aims: Objectives, whole: Outcome, left: Outcome) -> dict[str, PairedTest]:
    """Return what can be tested: the weighted mean, and each task for itself."""
    alone = {
        goal.task: replace(aims, campaign=_only(aims, goal.task))
        for goal in aims.campaign.objectives
    }
    found = {MEAN: aims, **alone}
    tests = {task: _better(of, whole, left) for task, of in found.items()}
    return {task: test for task, test in tests.items() if test is not None}


def _nothing(aims: Objectives, whole: Outcome) -> dict[str, TestedGain]:
    """Return what a part adds without which it is the same model."""
    items = {goal.task: len(whole.scores[goal.task].items) for goal in aims.campaign.objectives}
    counts = {MEAN: sum(items.values()), **items}
    return {
        task: TestedGain(PairedTest(0.0, 0.0, 0.0, 1.0, count, "the same model"), 1.0)
        for task, count in counts.items()
    }


def _better(aims: Objectives, whole: Outcome, left: Outcome) -> PairedTest | None:
    """Test whole minus left, in the direction in which more is better."""
    return paired(aims, whole, left) if mean_sign(aims) > 0 else paired(aims, left, whole)


def _only(aims: Objectives, task: str) -> Campaign:
    goals = tuple(goal for goal in aims.campaign.objectives if goal.task == task)
    return aims.campaign.model_copy(update={"objectives": goals, "normalize": "none"})


def _why(outcome: Outcome | None) -> str:
    if outcome is None:
        return "not scored"
    return "" if outcome.failure is None else f"{outcome.failure.kind}: {outcome.failure.reason}"
