"""A comparison in words, tables and records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from evomerge.report.comparison.comparison import Comparison, Difference
from evomerge.report.comparison.effort import Milestone
from evomerge.report.curve import Axis
from evomerge.report.evidence import FINAL
from evomerge.report.grid import (
    Cell,
    Column,
    Grid,
    Line,
    Plain,
    Report,
    number,
    numbers,
    short_names,
    with_ends,
    with_p,
)
from evomerge.report.layout import ends
from evomerge.report.notes import readings_notes
from evomerge.report.scores import Value
from evomerge.report.verdict import SIGNIFICANT

UNITS: dict[Axis, str] = {
    "trials": "trials",
    "item_evaluations": "item evaluations",
    "seconds": "seconds",
}


def comparison_report(compared: Comparison) -> Report:
    """Return what formats write of a comparison."""
    grids = [standings_grid(compared), effort_grid(compared), settings_grid(compared)]
    shown = tuple(grid for grid in grids if grid.lines or grid.notes)
    data = {**asdict(compared), "verdict": verdict(compared)}
    return Report(shown, _records(compared), data, compared)


def verdict(compared: Comparison) -> list[str]:
    """Say in a sentence each which campaign's winner is better, and which search was faster."""
    return findings(compared) + [_effort(compared, at) for at in _last(compared.checkpoints)]


def findings(compared: Comparison) -> list[str]:
    """Say of every campaign but the first whether its winner is better than that of the first."""
    first, *others = compared.entries
    tested = {one.label: one for one in compared.differences}
    found = []
    for other in others:
        if other.label in tested:
            found.append(_finding(tested[other.label], compared.sign))
            continue
        blank = [one.label for one in (first, other) if one.objective is None]
        why = "they share none with scores"
        if blank:
            why = f"{' and '.join(blank)} has no scores there"
        elif other.label in compared.unpaired:
            why = "there is no paired test of these scores"
        found.append(
            f"{other.label} and {first.label} are not tested against each other on the {compared.split} "
            f"items: {why}"
        )
    return found


def standings_grid(compared: Comparison) -> Grid:
    """Return the winners: the weighted mean, and every task."""
    goals, standings = compared.goals, compared.entries
    upward = compared.sign > 0
    columns = [Column("mean", [one.objective for one in standings], upward, interval=True)]
    for name, goal in zip(short_names([goal.task for goal in goals]), goals, strict=True):
        values = [one.tasks[goal.task] for one in standings]
        columns.append(Column(name, values, goal.higher_is_better))
    names = [(f"{one.label}: {one.row}", "campaign") for one in standings]
    title = f"{len(standings)} campaigns: {compared.split} items"
    return numbers(title, names, columns, [*verdict(compared), *remarks(compared)])


def effort_grid(compared: Comparison) -> Grid:
    """Return the best so far of each search at equal effort."""
    labels = [one.label for one in compared.entries]
    lines = tuple(_line(one, compared.search_sign) for one in compared.checkpoints)
    notes = tuple(f"not compared: {fault}" for fault in compared.search_faults)
    return Grid("best so far at equal effort, search items", ("", *labels), lines, notes)


def settings_grid(compared: Comparison) -> Grid:
    """Return the settings in which the campaigns differ."""
    labels = [one.label for one in compared.entries]
    lines = [
        Line(one.key, "", tuple(Cell("–" if value is None else value) for value in one.values))
        for one in compared.settings
    ]
    notes = () if lines else ("the settings, versions and hashes are the same",)
    return Grid("what differs in the settings", ("", *labels), tuple(lines), notes, words=True)


def _finding(one: Difference, sign: float) -> str:
    test = one.overall
    if one.p_corrected >= SIGNIFICANT or test.difference == 0:
        headline = f"no difference between {one.label} and {one.against} that these items show"
    else:
        word = "better" if sign * test.difference > 0 else "worse"
        headline = f"{one.label} is {word} than {one.against}"
    return f"{headline}: {with_p(test, one.p_corrected)}"


def _effort(compared: Comparison, at: Milestone) -> str:
    found = ", ".join(
        f"{one.label} {'nothing' if value is None else number(value)}"
        for one, value in zip(compared.entries, at.best, strict=True)
    )
    return f"best so far on the search items after {_amount(at)}: {found}"


def _last(checkpoints: Sequence[Milestone]) -> list[Milestone]:
    """Return the last checkpoint of each axis."""
    return list({one.axis: one for one in checkpoints}.values())


def _amount(at: Milestone) -> str:
    limit = f"{at.limit:.3g}" if at.limit < 100 else f"{at.limit:,.0f}"
    return f"{limit} {UNITS[at.axis]}"


def _line(at: Milestone, sign: float) -> Line:
    top = max((sign * value for value in at.best if value is not None), default=None)
    cells = (
        Cell() if value is None else Cell(number(value), best=sign * value == top)
        for value in at.best
    )
    return Line(_amount(at), "", tuple(cells))


def remarks(compared: Comparison) -> list[str]:
    """Say what a reader must know beside the numbers and the verdict, a sentence each."""
    notes = [f"compared all the same: {fault}" for fault in compared.faults]
    for entry in compared.entries:
        spent = f"{entry.trials} trials, {entry.item_evaluations:,} item evaluations"
        notes.append(f"{entry.label}: {spent}{f', {entry.seconds:.3g} s' if entry.seconds else ''}")
        if compared.split == FINAL:
            notes += [f"{entry.label}: {note}" for note in readings_notes(entry.holdout_readings)]
    sizes = {one.label: _items(one.objective) for one in compared.entries}
    for one in compared.differences:
        pair = f"{one.label} against {one.against}"
        names = short_names(list(one.tasks))
        parts = [
            f"{name} {with_ends(test)}"
            for name, test in zip(names, one.tasks.values(), strict=True)
        ]
        notes.append(f"{pair} by task: {', '.join(parts)}")
        shared = one.overall.n
        if any(sizes[label] > shared for label in (one.label, one.against)):
            notes.append(
                f"{pair} is on the {shared} items that both have, of {sizes[one.label]} and "
                f"{sizes[one.against]}; the values in the table are on all items of each"
            )
    if compared.left_out:
        notes.append(f"left out, as not every campaign has them: {', '.join(compared.left_out)}")
    return notes


def _items(value: Value | None) -> int:
    return 0 if value is None else value.n


def _records(compared: Comparison) -> list[dict[str, Plain]]:
    """Return one record a campaign; differences are to the first."""
    known = {one.label: one for one in compared.differences}
    records = []
    for place, entry in enumerate(compared.entries):
        record: dict[str, Plain] = {"campaign": entry.label, "row": entry.row}
        record |= {"split": compared.split, "trials": entry.trials}
        record |= {"item_evaluations": entry.item_evaluations, "seconds": entry.seconds}
        record |= ends("objective", entry.objective)
        for goal in compared.goals:
            record |= ends(f"{goal.task}.{goal.report}", entry.tasks[goal.task])
        one = known.get(entry.label)
        test = None if one is None else one.overall
        record |= ends(
            "difference", None if test is None else Value(test.difference, test.low, test.high)
        )
        record["n"] = None if test is None else test.n
        record["p"] = None if test is None else test.p
        record["p_corrected"] = None if one is None else one.p_corrected
        for at in compared.checkpoints:
            record[f"best_after_{at.limit:.6g}_{at.axis}"] = at.best[place]
        records.append(record)
    return records
