"""Winners of several campaigns side by side, and whether their differences mean anything.

Only like is compared with like: the same lm-eval version and, task by task, the same prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from evomerge.candidate.trial import SPLITS, Outcome, Split
from evomerge.errors import ResultsError
from evomerge.report.layout import Column, Grid, Line, probability, short_names, tested
from evomerge.report.leaderboard import Leaderboard
from evomerge.report.likeness import common_goals, unique_labels
from evomerge.report.rows import Goal, Row, Value, higher_is_better, split_scores
from evomerge.report.significance import FINAL, best, paired
from evomerge.report.statistics import PairedTest, holm
from evomerge.report.warnings import readings_note


@dataclass(frozen=True)
class Entry:
    """One campaign in a comparison.

    Attributes:
        label: The results folder.
        row: The row that stands for it: its winner; the best merge so far while it runs.
        objective: Weighted mean over the common tasks.
        tasks: Task → reported value.
        trials: Trials done.
        outcome: Per-item scores; None where the leaderboard was read from JSON.
        holdout_readings: How many winners, one after the other, were scored on holdout.
    """

    label: str
    row: str
    objective: Value | None
    tasks: Mapping[str, Value | None]
    trials: int
    outcome: Outcome | None = None
    holdout_readings: int = 0


@dataclass(frozen=True)
class Difference:
    """One campaign minus the first, on the same items.

    Attributes:
        label: The campaign.
        against: The first.
        overall: Test of the weighted mean.
        p_corrected: Its p after Holm's correction over the campaigns compared.
        tasks: Task → test.
    """

    label: str
    against: str
    overall: PairedTest
    p_corrected: float
    tasks: Mapping[str, PairedTest]


@dataclass(frozen=True)
class Comparison:
    """Several campaigns on one split.

    Attributes:
        split: Which items.
        goals: The first campaign's objectives, as far as all have them; its weights hold for all.
        entries: One a campaign.
        differences: Every other campaign against the first; without those whose items differ.
        left_out: Tasks that not all have.
    """

    split: Split
    goals: tuple[Goal, ...]
    entries: tuple[Entry, ...]
    differences: tuple[Difference, ...]
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain dicts and lists."""
        return {
            "split": self.split,
            "goals": [goal.to_json() for goal in self.goals],
            "entries": [asdict(replace(entry, outcome=None)) for entry in self.entries],
            "differences": [asdict(one) for one in self.differences],
            "left_out": list(self.left_out),
        }

    def grid(self) -> Grid:
        """Lay the comparison out: campaigns as lines, the mean and the tasks as columns."""
        tasks = [goal.task for goal in self.goals]
        columns = [
            Column("mean", higher_is_better(self.goals), interval=True),
            *(
                Column(name, goal.higher_is_better)
                for name, goal in zip(short_names(tasks), self.goals, strict=True)
            ),
        ]
        lines = tuple(
            Line(
                name=f"{entry.label}: {entry.row}",
                kind="campaign",
                values=(entry.objective, *(entry.tasks[task] for task in tasks)),
            )
            for entry in self.entries
        )
        title = f"{len(self.entries)} campaigns: {self.split} items"
        return Grid(title, tuple(columns), lines, tuple(self._notes()))

    def _notes(self) -> list[str]:
        notes = [f"{entry.label}: {entry.trials} trials" for entry in self.entries]
        if self.split == FINAL:
            read = [(one.label, readings_note(one.holdout_readings)) for one in self.entries]
            notes += [f"{label}: {note}" for label, note in read if note is not None]
        for one in self.differences:
            notes.append(
                f"{one.label} against {one.against}: {tested(one.overall)}, "
                f"{probability(one.p_corrected)} ({one.overall.method}, {one.overall.n} items, "
                "Holm-corrected)"
            )
            names = short_names(list(one.tasks))
            parts = [
                f"{name} {tested(test)}"
                for name, test in zip(names, one.tasks.values(), strict=True)
            ]
            notes.append(f"{one.label} against {one.against} by task: {', '.join(parts)}")
        paired_labels = {one.label for one in self.differences}
        for entry in self.entries[1:]:
            if entry.label not in paired_labels:
                notes.append(f"{entry.label}: no paired test, its items or scores are not the same")
        if self.left_out:
            notes.append(f"left out, as not every campaign has them: {', '.join(self.left_out)}")
        return notes


def comparison(
    leaderboards: Sequence[Leaderboard],
    *,
    labels: Sequence[str] = (),
    split: Split | None = None,
) -> Comparison:
    """Compare campaigns.

    Args:
        leaderboards: Two or more; the others are compared with the first.
        labels: What to call them, such as their folders; default the campaigns' names.
        split: Which items; default the last that every campaign has scores on.

    Raises:
        ResultsError: Fewer than two; or they differ in lm-eval version, prompts or reported metric, or
            have no task in common. The message names what differs.
    """
    if len(leaderboards) < 2:
        raise ResultsError(
            f"found {len(leaderboards)} leaderboard, expected two or more to compare"
        )
    names = unique_labels(labels or [one.campaign.name for one in leaderboards])
    goals, left_out = common_goals(leaderboards, names)
    split = split or _common_split(leaderboards)
    entries = [
        _entry(name, one, goals, split) for name, one in zip(names, leaderboards, strict=True)
    ]
    return Comparison(
        split, goals, tuple(entries), tuple(_differences(entries, goals)), tuple(left_out)
    )


def _common_split(leaderboards: Sequence[Leaderboard]) -> Split:
    latest = [SPLITS.index(one.latest_split()) for one in leaderboards]
    return SPLITS[min(latest)]


def _entry(label: str, leaderboard: Leaderboard, goals: Sequence[Goal], split: Split) -> Entry:
    row = _standing_for(leaderboard, split)
    campaign = leaderboard.campaign
    trials = campaign.done
    if row is None:
        return Entry(label, "no merge scored", None, {goal.task: None for goal in goals}, trials)
    outcome = row.splits[split].outcome
    objective = None if outcome is None else split_scores(outcome, goals).objective
    if outcome is None and tuple(goals) == campaign.goals:
        objective = row.splits[split].objective
    tasks = {goal.task: row.reported(split, goal) for goal in goals}
    read = campaign.holdout_readings
    return Entry(label, row.name, objective, tasks, trials, outcome, read)


def _standing_for(leaderboard: Leaderboard, split: Split) -> Row | None:
    """Return the best winner scored on `split`, else the best finalist; several on a Pareto front."""
    for kind in ("winner", "finalist"):
        rows = [row for row in leaderboard.rows if row.kind == kind and split in row.splits]
        if rows:
            return best(rows, leaderboard.campaign.goals, split)
    return None


def _differences(entries: Sequence[Entry], goals: Sequence[Goal]) -> list[Difference]:
    first = entries[0]
    found: list[tuple[Entry, PairedTest]] = []
    for entry in entries[1:]:
        if first.outcome is not None and entry.outcome is not None:
            test = paired(entry.outcome, first.outcome, goals)
            if test is not None:
                found.append((entry, test))
    corrected = holm([test.p for _, test in found])
    return [
        Difference(entry.label, first.label, test, p, _by_task(entry, first, goals))
        for (entry, test), p in zip(found, corrected, strict=True)
    ]


def _by_task(entry: Entry, first: Entry, goals: Sequence[Goal]) -> dict[str, PairedTest]:
    tests = {}
    for goal in goals:
        if entry.outcome is not None and first.outcome is not None:
            test = paired(entry.outcome, first.outcome, [goal])
            if test is not None:
                tests[goal.task] = test
    return tests
