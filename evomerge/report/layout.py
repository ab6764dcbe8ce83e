"""A leaderboard on one split: its table, and its rows as flat records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from evomerge.candidate.trial import Split
from evomerge.report.grid import Column, Grid, Plain, Report, numbers, short_names
from evomerge.report.leaderboard import Leaderboard
from evomerge.report.notes import MISSES, NET, notes
from evomerge.report.rows import Kind, Row
from evomerge.report.scores import SplitScores, Value
from evomerge.report.serving import unlike
from evomerge.report.summary import Constraint, Goal

ALWAYS_SHOWN: tuple[Kind, ...] = ("base", "expert", "winner")
BLANK = SplitScores(None, None, {})


def leaderboard_report(leaderboard: Leaderboard, split: Split | None = None) -> Report:
    """Return what formats write of a leaderboard on one split (None: the last that has scores)."""
    split = split or leaderboard.latest_split()
    grid, records = layout(leaderboard, split), _records(leaderboard, split)
    routing = leaderboard.routing.get(split)
    grids = (grid, *(() if routing is None else routing.grids()))
    return Report(grids, records, leaderboard.to_json(), leaderboard)


def layout(leaderboard: Leaderboard, split: Split | None = None) -> Grid:
    """Lay a leaderboard out on one split (None: the last that has scores).

    Base, experts and winners are always shown, blank where they were not scored; other rows only where
    they were, and a note counts the rest.
    """
    split = split or leaderboard.latest_split()
    campaign = leaderboard.campaign
    shown = [row for row in leaderboard.rows if row.kind in ALWAYS_SHOWN or split in row.splits]
    metrics = sorted({goal.report for goal in campaign.goals})
    metric = f", {metrics[0]}" if len(metrics) == 1 else ""
    return numbers(
        title=f"{campaign.name}: {split} items, {campaign.items[split]} a task{metric}",
        names=[(_shown_name(row, split), row.kind) for row in shown],
        columns=_columns(leaderboard, shown, split),
        notes=notes(leaderboard, split, shown),
    )


def _columns(leaderboard: Leaderboard, shown: Sequence[Row], split: Split) -> list[Column]:
    campaign = leaderboard.campaign
    goals, scores = campaign.goals, [row.splits.get(split, BLANK) for row in shown]
    shares = any(goal.normalized for goal in goals)
    columns = []
    if len(goals) > 1 or shares:
        upward = shares or any(goal.higher_is_better for goal in goals)
        columns.append(Column("mean", [one.objective for one in scores], upward, interval=True))
    if any(one.searched for one in scores):
        upward = shares or any(goal.searched_higher_is_better for goal in goals)
        columns.append(Column("searched", [one.searched for one in scores], upward))
    if campaign.costs and campaign.mode == "mean":
        columns.append(Column(NET, [_value(one.net) for one in scores]))
    alone = not columns or columns[0].header != "mean"
    for header, goal in zip(_headers(goals), goals, strict=True):
        values = [row.reported(split, goal) for row in shown]
        columns.append(Column(header, values, goal.higher_is_better, interval=alone))
    asked = dict.fromkeys([*campaign.costs, *(name for one in scores for name in one.costs)])
    costs = {name: [one.costs.get(name) for one in scores] for name in asked}
    for name, found in {**unlike([row.serving for row in shown]), **costs}.items():
        values = [_value(one) for one in found]
        columns.append(Column(name.replace("_", " "), values, higher_is_better=False))
    return columns


def _headers(goals: Sequence[Goal]) -> list[str]:
    names = short_names([goal.task for goal in goals])
    if len({goal.report for goal in goals}) == 1:
        return names
    return [f"{name} {goal.report}" for name, goal in zip(names, goals, strict=True)]


def _shown_name(row: Row, split: Split) -> str:
    name = f"{row.name} (winner)" if row.kind == "winner" else row.name
    if split in row.splits and row.splits[split].estimated:
        name += " (estimate)"
    return f"{name} {MISSES}" if row.misses(split) else name


def _value(number: float | None) -> Value | None:
    return None if number is None else Value(number)


def _records(leaderboard: Leaderboard, split: Split) -> list[dict[str, Plain]]:
    """Return one record a row, all with the same keys."""
    metrics = dict.fromkeys(
        (task, metric)
        for row in leaderboard.rows
        if split in row.splits
        for task, values in row.splits[split].tasks.items()
        for metric in values
    )
    campaign, constraints = leaderboard.campaign, leaderboard.constraints
    records = []
    for row in leaderboard.rows:
        scores = row.splits.get(split, BLANK)
        record: dict[str, Plain] = {
            "name": row.name,
            "kind": row.kind,
            "trial": row.trial,
            "split": split,
            **ends("objective", scores.objective),
        }
        for task, metric in metrics:
            value = scores.tasks.get(task, {}).get(metric)
            record |= ends(f"{task}.{metric}", value)
            record[f"{task}.{metric}_n"] = None if value is None else value.n
        if campaign.costs:
            record["net"] = scores.net
        record |= {f"cost.{cost}": scores.costs.get(cost) for cost in campaign.costs}
        if row.serving is not None:
            record |= {f"serving.{name}": value for name, value in asdict(row.serving).items()}
        missed = scores.violations or (None,) * len(constraints)
        record |= dict(zip(_missed(constraints), missed, strict=True))
        records.append(record)
    return records


def _missed(constraints: Sequence[Constraint]) -> list[str]:
    """Return a key for each, numbered where several are on one task or cost."""
    names = [one.name for one in constraints]
    return [
        f"missed.{name}" + (f".{names[:place].count(name) + 1}" if names.count(name) > 1 else "")
        for place, name in enumerate(names)
    ]


def ends(name: str, value: Value | None) -> dict[str, Plain]:
    """Return a value and its interval under three keys."""
    parts = (None, None, None) if value is None else (value.value, value.low, value.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), parts, strict=True))
