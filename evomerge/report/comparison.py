"""Winners of several campaigns side by side, and whether their differences mean anything.

Only like is compared with like: the same lm-eval version and, task by task, the same prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from evomerge.candidate.trial import SPLITS, Outcome, Split
from evomerge.errors import ResultsError, UserError, nearest
from evomerge.objective import Objectives, References
from evomerge.report.evidence import FINAL, best
from evomerge.report.formats import write
from evomerge.report.grid import (
    Column,
    Grid,
    Plain,
    Report,
    numbers,
    short_names,
    with_ends,
    with_p,
)
from evomerge.report.layout import ends
from evomerge.report.leaderboard import Leaderboard, leaderboard
from evomerge.report.notes import readings_notes
from evomerge.report.rows import Row
from evomerge.report.scores import Value, mean, paired
from evomerge.report.statistics import PairedTest, holm
from evomerge.report.summary import Goal
from evomerge.store import Store


@dataclass(frozen=True)
class Standing:
    """One campaign in a comparison, over the common tasks.

    `row` stands for it: its winner, or the best merge so far while it runs.
    """

    label: str
    row: str
    objective: Value | None
    tasks: Mapping[str, Value | None]
    trials: int
    holdout_readings: int = 0


@dataclass(frozen=True)
class Difference:
    """One campaign minus the first, on the same items.

    `overall` tests the weighted mean; `p_corrected` is its p after Holm's correction over the campaigns.
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
        goals: The first campaign's objectives, as far as all have them; its weights hold for all.
        differences: Every other campaign against the first; without those whose items differ.
        left_out: Tasks that not all have.
    """

    split: Split
    goals: tuple[Goal, ...]
    entries: tuple[Standing, ...]
    differences: tuple[Difference, ...]
    left_out: tuple[str, ...]


def compare_folders(
    folders: Sequence[Path],
    format: str = "table",
    split: Split | None = None,
    *,
    width: int | None = None,
    color: bool = False,
) -> str:
    """Write the winners of several results folders side by side; arguments as in `comparison` and `write`.

    Raises:
        UserError: An unknown format or split.
        ResultsError: A folder holds no campaign, or the campaigns cannot be compared.
    """
    if split is not None and split not in SPLITS:
        raise UserError(f'unknown split "{split}"; {nearest(split, SPLITS)}', field="--split")
    boards = []
    for folder in folders:
        with Store.open(folder, write=False) as store:
            boards.append(leaderboard(store))
    compared = comparison(boards, labels=[str(folder) for folder in folders], split=split)
    return write(comparison_report(compared), format, width=width, color=color)


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
    names = _unique(labels or [one.campaign.name for one in leaderboards])
    goals, left_out = common_goals(leaderboards, names)
    aims = _common_aims(leaderboards[0], goals)
    split = split or SPLITS[min(SPLITS.index(one.latest_split()) for one in leaderboards)]
    rows = [_standing_for(board, split) for board in leaderboards]
    outcomes = [None if row is None else row.outcome(split) for row in rows]
    entries = []
    for name, board, row, outcome in zip(names, leaderboards, rows, outcomes, strict=True):
        entries.append(
            Standing(
                label=name,
                row="no merge scored" if row is None else row.name,
                objective=None if outcome is None else mean(aims, outcome),
                tasks={goal.task: row.reported(split, goal) if row else None for goal in goals},
                trials=board.campaign.done,
                holdout_readings=board.campaign.holdout_readings,
            )
        )
    differences = _differences(names, outcomes, aims)
    return Comparison(split, goals, tuple(entries), differences, left_out)


def common_goals(
    leaderboards: Sequence[Leaderboard], labels: Sequence[str]
) -> tuple[tuple[Goal, ...], tuple[str, ...]]:
    """Return the objectives that all campaigns share, as the first has them, and the tasks left out.

    Values count as they are, not as shares of the best expert's, which may differ between campaigns.

    Raises:
        ResultsError: No task is shared; or the lm-eval version, a shared task's reported metric or its
            prompts differ. The message names what differs.
    """
    campaigns = [one.campaign for one in leaderboards]
    reports = [{goal.task: goal.report for goal in campaign.goals} for campaign in campaigns]
    shared = [task for task in reports[0] if all(task in known for known in reports)]
    if not shared:
        raise ResultsError(f"{labels[0]} and {', '.join(labels[1:])} have no task in common")
    versions = [campaign.versions.get("lm_eval", "unknown") for campaign in campaigns]
    prompts = [campaign.prompts for campaign in campaigns]
    for other, label in enumerate(labels[1:], start=1):
        pairs = [("the version of lm_eval", versions[0], versions[other])]
        for task in shared:
            metric = f'the reported metric of task "{task}"'
            pairs.append((metric, reports[0][task], reports[other][task]))
        for task in sorted(prompts[0].keys() & prompts[other].keys()):
            hashes = f'the hash of the prompts of task "{task}"'
            pairs.append((hashes, prompts[0][task], prompts[other][task]))
        for what, mine, theirs in pairs:
            if mine != theirs:
                raise ResultsError(
                    f"cannot be compared: {what} is {mine} in {labels[0]} and {theirs} in {label}; "
                    "run one of them again under the settings of the other"
                )
    every = dict.fromkeys(task for known in reports for task in known)
    goals = [replace(goal, normalized=False) for goal in campaigns[0].goals if goal.task in shared]
    return tuple(goals), tuple(task for task in every if task not in shared)


def comparison_report(compared: Comparison) -> Report:
    """Return what formats write of a comparison."""
    return Report((_grid(compared),), _records(compared), asdict(compared), compared)


def _unique(labels: Sequence[str]) -> list[str]:
    """Number the repetitions: `a`, `a #2`."""
    counts = [labels[: index + 1].count(label) for index, label in enumerate(labels)]
    return [
        label if count == 1 else f"{label} #{count}"
        for label, count in zip(labels, counts, strict=True)
    ]


def _common_aims(board: Leaderboard, goals: Sequence[Goal]) -> Objectives:
    """Return the first campaign's objectives on the common tasks, by the reported metrics."""
    aims, tasks = board.aims["search"], [goal.task for goal in goals]
    common = tuple(goal for goal in aims.campaign.objectives if goal.task in tasks)
    changes = {"objectives": common, "normalize": "none", "keep": (), "costs": ()}
    campaign = aims.campaign.model_copy(update=changes)
    return replace(aims, campaign=campaign, references=References(), split="select")


def _standing_for(board: Leaderboard, split: Split) -> Row | None:
    """Return the winner, else the best finalist, that was scored on `split`."""
    for kind in ("winner", "finalist"):
        rows = [row for row in board.rows if row.kind == kind and split in row.splits]
        if rows:
            return best(rows, split)
    return None


def _differences(
    names: Sequence[str], outcomes: Sequence[Outcome | None], aims: Objectives
) -> tuple[Difference, ...]:
    first = outcomes[0]
    found = [
        (name, outcome, test)
        for name, outcome in zip(names[1:], outcomes[1:], strict=True)
        if first and outcome and (test := paired(aims, outcome, first)) is not None
    ]
    corrected = holm([test.p for *_, test in found])
    return tuple(
        Difference(name, names[0], test, p, _by_task(aims, outcome, first))
        for (name, outcome, test), p in zip(found, corrected, strict=True)
        if first
    )


def _by_task(aims: Objectives, outcome: Outcome, first: Outcome) -> dict[str, PairedTest]:
    tests = {}
    for goal in aims.campaign.objectives:
        campaign = aims.campaign.model_copy(update={"objectives": (goal,)})
        test = paired(replace(aims, campaign=campaign), outcome, first)
        if test is not None:
            tests[goal.task] = test
    return tests


def _grid(compared: Comparison) -> Grid:
    goals, entries = compared.goals, compared.entries
    upward = any(goal.higher_is_better for goal in goals)
    columns = [Column("mean", [entry.objective for entry in entries], upward, interval=True)]
    for name, goal in zip(short_names([goal.task for goal in goals]), goals, strict=True):
        values = [entry.tasks[goal.task] for entry in entries]
        columns.append(Column(name, values, goal.higher_is_better))
    names = [(f"{entry.label}: {entry.row}", "campaign") for entry in entries]
    title = f"{len(entries)} campaigns: {compared.split} items"
    return numbers(title, names, columns, _notes(compared))


def _notes(compared: Comparison) -> list[str]:
    notes = [f"{entry.label}: {entry.trials} trials" for entry in compared.entries]
    if compared.split == FINAL:
        for entry in compared.entries:
            notes += [f"{entry.label}: {note}" for note in readings_notes(entry.holdout_readings)]
    for one in compared.differences:
        pair = f"{one.label} against {one.against}"
        notes.append(f"{pair}: {with_p(one.overall, one.p_corrected)}")
        names = short_names(list(one.tasks))
        parts = [
            f"{name} {with_ends(test)}"
            for name, test in zip(names, one.tasks.values(), strict=True)
        ]
        notes.append(f"{pair} by task: {', '.join(parts)}")
    paired_labels = {one.label for one in compared.differences}
    notes += [
        f"{entry.label}: no paired test, its items or scores are not the same"
        for entry in compared.entries[1:]
        if entry.label not in paired_labels
    ]
    if compared.left_out:
        notes.append(f"left out, as not every campaign has them: {', '.join(compared.left_out)}")
    return notes


def _records(compared: Comparison) -> list[dict[str, Plain]]:
    """Return one record a campaign; differences are to the first."""
    known = {one.label: one for one in compared.differences}
    records = []
    for entry in compared.entries:
        record: dict[str, Plain] = {"campaign": entry.label, "row": entry.row}
        record |= {"split": compared.split, "trials": entry.trials}
        record |= ends("objective", entry.objective)
        for goal in compared.goals:
            record |= ends(f"{goal.task}.{goal.report}", entry.tasks[goal.task])
        one = known.get(entry.label)
        test = None if one is None else one.overall
        record |= ends(
            "difference", None if test is None else Value(test.difference, test.low, test.high)
        )
        record["p"] = None if test is None else test.p
        record["p_corrected"] = None if one is None else one.p_corrected
        records.append(record)
    return records
