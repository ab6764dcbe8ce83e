"""What stands where in a leaderboard, before any format: a grid of cells, a title and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evomerge.candidate.trial import Split
from evomerge.report.constraints import condition_notes, misses
from evomerge.report.leaderboard import Leaderboard
from evomerge.report.rows import Goal, Kind, Row, Value, higher_is_better
from evomerge.report.significance import FINAL, Contrast, GeneralisationGap
from evomerge.report.statistics import PairedTest
from evomerge.report.summary import Summary
from evomerge.report.warnings import readings_note, warning_notes

ALWAYS_SHOWN: tuple[Kind, ...] = ("base", "expert", "winner")
NET = "net"
MISSES = "†"


@dataclass(frozen=True)
class Column:
    """One column of numbers.

    Attributes:
        header: In full.
        higher_is_better: Direction, for marking the best.
        interval: Show the 95 % interval beside the value.
    """

    header: str
    higher_is_better: bool = True
    interval: bool = False


@dataclass(frozen=True)
class Line:
    """One line of the grid: a name, a kind, and a value (None: blank) for each column."""

    name: str
    kind: str
    values: tuple[Value | None, ...]


@dataclass(frozen=True)
class Grid:
    """A leaderboard on one split.

    Attributes:
        title: What is shown.
        columns: Objective first, then the tasks.
        lines: The rows.
        notes: What else the reader must know, a sentence each.
    """

    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    def best(self, index: int) -> float | None:
        """Return the best value of a column, None where the column is blank."""
        values = [value.value for line in self.lines if (value := line.values[index]) is not None]
        choose = max if self.columns[index].higher_is_better else min
        return choose(values, default=None)


def layout(leaderboard: Leaderboard, split: Split | None = None) -> Grid:
    """Lay a leaderboard out on one split.

    Base, experts and winners are always shown, blank where they were not scored; other rows only where
    they were, and a note counts the rest.

    Args:
        leaderboard: The rows.
        split: Which items; default the last of search, select, holdout that has scores.
    """
    split = split or leaderboard.latest_split()
    shown = [row for row in leaderboard.rows if row.kind in ALWAYS_SHOWN or split in row.splits]
    goals = leaderboard.campaign.goals
    searched = any(
        row.splits[split].searched is not None for row in shown if split in row.splits
    )  # fmt: skip
    mean = _has_mean(goals)
    columns = [Column("mean", higher_is_better(goals), interval=True)] if mean else []
    if searched:
        columns.append(Column("searched", higher_is_better(goals, searched=True)))
    costs = leaderboard.campaign.costs
    if costs and leaderboard.campaign.mode == "mean":
        columns.append(Column(NET))
    headers = _task_headers(leaderboard)
    columns += [
        Column(header, goal.higher_is_better, interval=not mean)
        for header, goal in zip(headers, goals, strict=True)
    ]
    columns += [Column(cost.replace("_", " "), higher_is_better=False) for cost in costs]
    lines = tuple(
        Line(_shown_name(row, split), row.kind, _values(row, leaderboard, split, searched))
        for row in shown
    )
    return Grid(
        title=_title(leaderboard, split),
        columns=tuple(columns),
        lines=lines,
        notes=tuple(_notes(leaderboard, split, shown)),
    )


def number(value: float) -> str:
    """Write a score: three decimals, fewer where the number is large."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"


def difference(value: float) -> str:
    """Write a difference, its sign always shown."""
    return f"{value:+.3f}" if abs(value) < 100 else f"{value:+.4g}"


def probability(p: float) -> str:
    """Write a p-value with its sign of comparison, such as `p = 0.012` or `p < 0.0001`."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def tested(test: PairedTest) -> str:
    """Write a tested difference with its 95 % interval."""
    return f"{difference(test.difference)} ({difference(test.low)} to {difference(test.high)})"


def short_names(tasks: Sequence[str]) -> list[str]:
    """Drop the words, set off by `_`, that all names begin with, such as the `zoo_` of `zoo_facts`."""
    parts = [task.split("_") for task in tasks]
    shortest = min((len(words) for words in parts), default=1)
    cut = 0
    while len(parts) > 1 and cut < shortest - 1 and len({words[cut] for words in parts}) == 1:
        cut += 1
    return ["_".join(words[cut:]) for words in parts]


def _has_mean(goals: Sequence[Goal]) -> bool:
    return len(goals) > 1 or any(goal.normalized for goal in goals)


def _shown_name(row: Row, split: Split) -> str:
    scores = row.splits.get(split)
    name = f"{row.name} (winner)" if row.kind == "winner" else row.name
    if scores is not None and scores.estimated:
        name += " (estimate)"
    return f"{name} {MISSES}" if misses(row, split) else name


def _task_headers(leaderboard: Leaderboard) -> list[str]:
    goals = leaderboard.campaign.goals
    names = short_names([goal.task for goal in goals])
    if len({goal.report for goal in goals}) == 1:
        return names
    return [f"{name} {goal.report}" for name, goal in zip(names, goals, strict=True)]


def _values(
    row: Row, leaderboard: Leaderboard, split: Split, searched: bool
) -> tuple[Value | None, ...]:
    goals = leaderboard.campaign.goals
    scores = row.splits.get(split)
    values: list[Value | None] = []
    if _has_mean(goals):
        values.append(None if scores is None else scores.objective)
    if searched:
        values.append(None if scores is None else scores.searched)
    costs = leaderboard.campaign.costs
    if costs and leaderboard.campaign.mode == "mean":
        values.append(None if scores is None or scores.net is None else Value(scores.net))
    values += [row.reported(split, goal) for goal in goals]
    spent = {} if scores is None else scores.costs
    values += [Value(spent[cost]) if cost in spent else None for cost in costs]
    return tuple(values)


def _title(leaderboard: Leaderboard, split: Split) -> str:
    campaign = leaderboard.campaign
    metrics = sorted({goal.report for goal in campaign.goals})
    metric = f", {metrics[0]}" if len(metrics) == 1 else ""
    return f"{campaign.name}: {split} items, {campaign.items[split]} a task{metric}"


def _notes(leaderboard: Leaderboard, split: Split, shown: Sequence[Row]) -> list[str]:
    campaign, tests = leaderboard.campaign, leaderboard.tests
    notes = [_progress(leaderboard)]
    notes += warning_notes(leaderboard.rows, campaign.goals, split)
    if split == FINAL:
        notes += [contrast_note(contrast) for contrast in tests.contrasts]
    if (read := readings_note(campaign.holdout_readings)) is not None:
        notes.append(read)
    notes += [_generalisation_gap_note(one) for one in tests.generalisation_gap]
    searched = sorted({goal.metric for goal in campaign.goals if goal.metric != goal.report})
    if searched:
        notes.append(f"searched: the weighted mean of what the sampler saw ({', '.join(searched)})")
    if len({goal.weight for goal in campaign.goals}) > 1:
        weights = ", ".join(f"{goal.task} {goal.weight:g}" for goal in campaign.goals)
        notes.append(f"mean: weighted by {weights}")
    if campaign.normalize == "best_expert":
        notes.append(
            "mean: of every task's value as a share of the best expert's on the same items"
        )
    if campaign.costs:
        notes.append(_cost_note(campaign))
    notes += condition_notes(leaderboard.conditions, leaderboard.rows)
    if any(misses(row, split) for row in shown):
        notes.append(f"{MISSES} misses a condition on the {split} items")
    if any(split in row.splits and row.splits[split].estimated for row in shown):
        notes.append("estimate: the trial was given up before its last item")
    front = [row.name for row in leaderboard.rows if row.front]
    if front:
        notes.append(f"Pareto front: {', '.join(front)}")
    for row in shown:
        failure = row.splits[split].failure if split in row.splits else None
        if failure is not None:
            notes.append(f"{row.name} has no scores: {failure}")
    hidden = len(leaderboard.rows) - len(shown)
    if hidden:
        notes.append(f"{hidden} more rows were not scored on {split}")
    return notes


def _progress(leaderboard: Leaderboard) -> str:
    campaign = leaderboard.campaign
    of = "" if campaign.trials is None else f" of {campaign.trials}"
    done = f"{campaign.done}{of} trials done"
    pruned = f", {campaign.pruned} of them given up early" if campaign.pruned else ""
    failed = f", {campaign.failed} of them failed" if campaign.failed else ""
    ended = f"; search ended: {campaign.ended}" if campaign.ended else ""
    running = "" if leaderboard.winners else "; no winner chosen yet"
    return done + pruned + failed + ended + running


def _cost_note(campaign: Summary) -> str:
    if campaign.mode == "pareto":
        return "costs: relative to the base's; objectives of their own"
    terms = ", ".join(
        f"{weight:g} × {cost.replace('_', ' ')}" for cost, weight in campaign.costs.items()
    )
    return f"{NET}: the mean less {terms}; costs are relative to the base's"


def contrast_note(contrast: Contrast) -> str:
    """Say one paired test in a sentence."""
    test = contrast.test
    return (
        f"{contrast.row} against {contrast.part}, {contrast.against}: "
        f"{tested(test)}, {probability(contrast.p_corrected)} "
        f"({test.method}, {test.n} items, Holm-corrected)"
    )


def _generalisation_gap_note(one: GeneralisationGap) -> str:
    steps = [("search", one.search), ("select", one.select), ("holdout", one.holdout)]
    known = [(split, value) for split, value in steps if value is not None]
    return (
        f"{one.row} from {' to '.join(split for split, _ in known)} items ({one.metric} metric): "
        f"{' to '.join(number(value) for _, value in known)}, "
        f"a generalisation gap of {number(one.difference)}"
    )
