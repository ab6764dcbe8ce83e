"""Explains the winner of a finished campaign, and keeps what was measured for the next time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evomerge.candidate.ablation import places
from evomerge.candidate.merge import Merge
from evomerge.candidate.trial import Outcome
from evomerge.explanation.contributions import contributions
from evomerge.explanation.explanation import Conflict, Explanation, RandomControl, Sensitivity
from evomerge.explanation.items import item_changes
from evomerge.explanation.layout import text
from evomerge.explanation.measurement import SEED, SPLIT, WinnerMeasurement
from evomerge.explanation.summary import summary
from evomerge.membership import Roster, finished, with_those_that_left, with_workers
from evomerge.objective import Objectives, metric_on
from evomerge.preflight.check import Preflight, preflight
from evomerge.preflight.facts import facts_of, refuse_changes
from evomerge.progress import Display, NoDisplay
from evomerge.report.leaderboard import leaderboard
from evomerge.report.scores import Value, mean, task_value
from evomerge.store import Store, read_texts

JSON, MARKDOWN = "explanation.json", "explanation.md"
"""Files of the results folder."""


def explain(
    folder: Path,
    *,
    workers: int | None = None,
    random: bool = False,
    display: Display | None = None,
) -> Explanation:
    """Say why the winner of a finished campaign works.

    What is scored for it is recorded beside the campaign, once: a call that was interrupted goes on, and a
    second one only reads.

    Args:
        folder: The results folder; `explanation.json` and `explanation.md` are written there.
        workers: How many score; 0: this process; None: as many as the campaign had.
        random: Score the winner's numbers on random task vectors, too.
        display: Shows progress.

    Raises:
        ResultsError: The folder holds no finished campaign, is in use, or its models or tasks changed.
        UserError: A model or task is gone.
    """
    display = display or NoDisplay()
    with finished(folder) as store:
        campaign = Roster.of(store).campaign(store.campaign)
        if workers is not None:
            campaign = with_workers(campaign, workers)
        ready = preflight(campaign, results=store.folder, began_with=Roster.began(store).experts)
        facts = facts_of(ready)
        for warning in refuse_changes(store, with_those_that_left(facts, store)):
            display.say(warning)
        measured = WinnerMeasurement(store, ready, display)
        measured.run(random=random)
        found = _explained(store, ready, facts, measured)
        store.write_file(JSON, text(found, "json"))
        store.write_file(MARKDOWN, text(found, "markdown"))
    return found


def _explained(
    store: Store, ready: Preflight, facts: Mapping[str, Any], measured: WinnerMeasurement
) -> Explanation:
    winner, names = measured.winner, measured.names
    aims = Objectives.of(ready.campaign, facts, store.evaluations(), SPLIT)
    parts = {
        of: contributions(
            aims, winner.candidate, measured.whole, ablations, measured.outcome, names
        )
        for of, ablations in (
            ("experts", measured.ablations.experts),
            ("groups", measured.ablations.groups),
        )
    }
    texts = {split: read_texts(store.arrays, split) for split in ready.items.splits}
    found = Explanation(
        campaign=ready.campaign.name,
        winner=winner.name,
        label=winner.candidate.label(),
        tasks=tuple(goal.task for goal in ready.campaign.objectives),
        mean=mean(aims, measured.whole),
        values=_values(aims, measured.whole),
        how=measured.ablations.how,
        experts=parts["experts"],
        groups=parts["groups"],
        sensitivity=_sensitivity(measured, names),
        changes=item_changes(leaderboard(store), texts),
        conflict=_conflict(ready, measured),
        random=_random(aims, measured),
        notes=(*measured.ablations.notes, *measured.notes),
    )
    return replace(found, summary=summary(found))


def _values(aims: Objectives, outcome: Outcome) -> dict[str, Value]:
    found = {}
    for goal in aims.campaign.objectives:
        metric, scores = metric_on(goal, aims.split), outcome.scores[goal.task]
        found[goal.task] = task_value(scores, metric, scores.values[metric])
    return found


def _sensitivity(measured: WinnerMeasurement, names: Mapping[str, str]) -> Sensitivity | None:
    candidate, found = measured.winner.candidate, measured.gradients()
    if not found or not isinstance(candidate, Merge):
        return None
    layers, tensors = zip(*places(candidate).values(), strict=True)
    return Sensitivity(
        tuple(names.get(one, one) for one in candidate.experts),
        tuple(dict.fromkeys(layers)),
        tuple(dict.fromkeys(tensors)),
        {task: loss for task, (loss, _) in found.items()},
        {task: gradients for task, (_, gradients) in found.items()},
    )


def _conflict(ready: Preflight, measured: WinnerMeasurement) -> Conflict | None:
    experts = tuple(ready.family.family.experts)
    if len(experts) < 2:
        return None
    distances, prompts = measured.states()
    return Conflict(experts, measured.task_vectors(), distances, prompts)


def _random(aims: Objectives, measured: WinnerMeasurement) -> RandomControl | None:
    outcome = measured.outcome(measured.winner.candidate, SEED)
    if outcome is None:
        return None
    if outcome.failure is not None:
        failure = f"{outcome.failure.kind}: {outcome.failure.reason}"
        return RandomControl(SEED, None, {}, failure)
    return RandomControl(SEED, mean(aims, outcome), _values(aims, outcome))
