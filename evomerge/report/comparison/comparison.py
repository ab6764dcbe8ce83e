"""Campaigns compared: winners on the same items, searches at equal effort, settings that differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from evomerge.candidate.trial import Outcome, Split
from evomerge.objective import Objectives, References
from evomerge.report.comparison.comparable import Common, Sides, common, refuse
from evomerge.report.comparison.effort import Milestone, checkpoints, search_faults
from evomerge.report.comparison.settings import Setting, unlike_settings
from evomerge.report.evidence import best
from evomerge.report.leaderboard import Leaderboard
from evomerge.report.rows import Row
from evomerge.report.scores import Value, mean, mean_sign, on_shared_items, paired
from evomerge.report.statistics import PairedTest, holm
from evomerge.report.summary import Goal


@dataclass(frozen=True)
class Standing:
    """One campaign in a comparison, over the common tasks.

    Attributes:
        label: What it is called.
        row: What stands for it: its winner, or the best merge so far while it runs.
        objective: The first campaign's weighted mean.
        tasks: Task → value.
        trials: With an outcome of any kind.
        item_evaluations: That the search spent.
        seconds: From the search's first work to its last; 0 where that is not known.
        holdout_readings: How many winners were scored on holdout.
    """

    label: str
    row: str
    objective: Value | None
    tasks: Mapping[str, Value | None]
    trials: int
    item_evaluations: int = 0
    seconds: float = 0.0
    holdout_readings: int = 0


@dataclass(frozen=True)
class Difference:
    """One campaign minus the first, on the items that both have.

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
        split: The items.
        goals: The first campaign's objectives, as far as all have them; its weights hold for all.
        entries: A campaign each.
        differences: Every other campaign against the first; without those that share no items with it.
        left_out: Tasks that not all have.
        settings: Settings, versions and hashes that differ.
        checkpoints: The best so far at equal effort; none where `search_faults` say why.
        search_faults: Why the best so far cannot be compared.
        faults: Why the campaigns cannot be compared; they were all the same.
        sign: -1 where less of the mean is better, else 1.
        search_sign: The same of the searched metrics.
        unpaired: Campaigns that share items with the first, by scores of which there is no paired test.
    """

    split: Split
    goals: tuple[Goal, ...]
    entries: tuple[Standing, ...]
    differences: tuple[Difference, ...]
    left_out: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    checkpoints: tuple[Milestone, ...] = ()
    search_faults: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    sign: float = field(default=1.0, repr=False)
    search_sign: float = field(default=1.0, repr=False)
    unpaired: tuple[str, ...] = ()


def comparison(sides: Sides, split: Split | None = None, *, anyway: bool = False) -> Comparison:
    """Compare campaigns.

    Args:
        sides: What each is called → the campaign, of an open store; two or more. The others are compared with
            the first.
        split: Which items; default the last that every campaign has scores on.
        anyway: Compare also what is not comparable; the reasons are in the result.

    Raises:
        ResultsError: They are fewer than two, have no task in common, or are not comparable: they differ in
            lm-eval's version, a metric, prompts or right answers, or share no items.
    """
    shared = common(sides, split)
    if not anyway:
        refuse(shared)
    boards = [one.board for one in sides.values()]
    aims = _common_aims(boards[0], shared)
    rows = [_standing_for(board, shared.split) for board in boards]
    outcomes = [None if row is None else row.outcome(shared.split) for row in rows]
    standings = []
    for (label, side), row, outcome in zip(sides.items(), rows, outcomes, strict=True):
        standing = Standing(
            label=label,
            row="no merge scored" if row is None else row.name,
            objective=None if outcome is None else mean(aims, outcome),
            tasks={g.task: row.reported(shared.split, g) if row else None for g in shared.goals},
            trials=side.board.campaign.done,
            item_evaluations=int(side.curve.total("item_evaluations")),
            seconds=side.curve.total("seconds"),
            holdout_readings=side.board.campaign.holdout_readings,
        )
        standings.append(standing)
    faults = search_faults(sides)
    first, *others = outcomes
    pairs = {
        label: None if other is None or first is None else on_shared_items(aims, other, first)
        for label, other in zip(list(sides)[1:], others, strict=True)
    }
    differences = _differences(next(iter(sides)), pairs, aims)
    tested = {one.label for one in differences}
    curve = next(iter(sides.values())).curve
    return Comparison(
        shared.split,
        shared.goals,
        tuple(standings),
        differences,
        shared.left_out,
        unlike_settings(sides),
        () if faults else checkpoints(sides),
        faults,
        shared.faults,
        mean_sign(aims),
        1.0 if curve.higher_is_better else -1.0,
        tuple(label for label, pair in pairs.items() if pair is not None and label not in tested),
    )


def _common_aims(board: Leaderboard, shared: Common) -> Objectives:
    """Return the first campaign's objectives on the common tasks, by the reported metrics."""
    aims, tasks = board.aims["search"], [goal.task for goal in shared.goals]
    goals = tuple(goal for goal in aims.campaign.objectives if goal.task in tasks)
    changes = {"objectives": goals, "normalize": "none", "keep": (), "costs": ()}
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
    against: str, pairs: Mapping[str, tuple[Outcome, Outcome] | None], aims: Objectives
) -> tuple[Difference, ...]:
    found = []
    for label, pair in pairs.items():
        test = None if pair is None else paired(aims, *pair)
        if pair is not None and test is not None:
            found.append((label, pair, test))
    corrected = holm([test.p for *_, test in found])
    return tuple(
        Difference(label, against, test, p, _by_task(aims, *pair))
        for (label, pair, test), p in zip(found, corrected, strict=True)
    )


def _by_task(aims: Objectives, outcome: Outcome, first: Outcome) -> dict[str, PairedTest]:
    tests = {}
    for goal in aims.campaign.objectives:
        campaign = aims.campaign.model_copy(update={"objectives": (goal,)})
        test = paired(replace(aims, campaign=campaign), outcome, first)
        if test is not None:
            tests[goal.task] = test
    return tests
