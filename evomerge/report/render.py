"""A leaderboard, or a comparison of several, as a table for the terminal, Markdown, JSON or CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any, Literal, get_args

from evomerge.candidate.trial import SPLITS, Split
from evomerge.errors import UserError, nearest
from evomerge.report.comparison import Comparison, comparison
from evomerge.report.escape import markdown_cell, plain, spreadsheet_cell
from evomerge.report.layout import Grid, layout, number
from evomerge.report.leaderboard import Leaderboard
from evomerge.report.rows import Value
from evomerge.report.terminal import terminal_table

Format = Literal["table", "markdown", "json", "csv"]
FORMATS: tuple[str, ...] = get_args(Format)


def render(
    leaderboard: Leaderboard,
    format: Format = "table",
    split: Split | None = None,
    *,
    width: int | None = None,
    color: bool = False,
) -> str:
    """Write a leaderboard.

    Args:
        leaderboard: What to write.
        format: `table` (at most `width` columns), `markdown`, `json` (all splits) or `csv`.
        split: Which items; default the last of search, select, holdout that has scores.
        width: Columns; default the terminal's, else 100; of `table` only.
        color: ANSI styles; of `table` only.

    Raises:
        UserError: An unknown format or split.
    """
    _check(format, split)
    if format == "json":
        return _json(leaderboard.to_json())
    if format == "csv":
        return _csv(leaderboard, split or leaderboard.latest_split())
    grid = layout(leaderboard, split)
    return (
        markdown(grid) if format == "markdown" else terminal_table(grid, width=width, color=color)
    )


def compare(
    leaderboards: Sequence[Leaderboard],
    format: Format = "table",
    split: Split | None = None,
    *,
    labels: Sequence[str] = (),
    width: int | None = None,
    color: bool = False,
) -> str:
    """Write several campaigns' winners side by side, the others against the first.

    Args:
        leaderboards: Two or more.
        format: As in `render`.
        split: Which items; default the last that every campaign has scores on.
        labels: What to call the campaigns, such as their folders; default their names.
        width: Columns; default the terminal's, else 100; of `table` only.
        color: ANSI styles; of `table` only.

    Raises:
        UserError: An unknown format or split.
        ResultsError: They cannot be compared; the message names what differs.
    """
    _check(format, split)
    compared = comparison(leaderboards, labels=labels, split=split)
    if format == "json":
        return _json(compared.to_json())
    if format == "csv":
        return _comparison_csv(compared)
    grid = compared.grid()
    return (
        markdown(grid) if format == "markdown" else terminal_table(grid, width=width, color=color)
    )


def markdown(grid: Grid) -> str:
    """Write a grid as a Markdown table under its title, the best of each column in bold."""
    headers = ["", *(column.header for column in grid.columns)]
    lines = [
        f"**{markdown_cell(grid.title)}**",
        "",
        "| " + " | ".join(markdown_cell(header) for header in headers) + " |",
        "| --- |" + " ---: |" * len(grid.columns),
    ]
    best = [grid.best(index) for index in range(len(grid.columns))]
    for line in grid.lines:
        cells = [
            f"**{markdown_cell(line.name)}**" if line.kind == "winner" else markdown_cell(line.name)
        ]
        for column, value, top in zip(grid.columns, line.values, best, strict=True):
            cells.append(_markdown_value(value, top, column.interval))
        lines.append("| " + " | ".join(cells) + " |")
    if any(column.interval for column in grid.columns):
        lines += ["", "In brackets: 95 % intervals."]
    lines += ["", *(f"- {markdown_cell(note)}" for note in grid.notes)]
    return "\n".join(lines) + "\n"


def _check(format: str, split: str | None) -> None:
    if format not in FORMATS:
        raise UserError(f'unknown format "{format}"; {nearest(format, FORMATS)}', field="--format")
    if split is not None and split not in SPLITS:
        raise UserError(f'unknown split "{split}"; {nearest(split, SPLITS)}', field="--split")


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _markdown_value(value: Value | None, best: float | None, interval: bool) -> str:
    if value is None:
        return ""
    text = number(value.value)
    if value.value == best:
        text = f"**{text}**"
    if interval and value.low is not None and value.high is not None:
        text += f" [{number(value.low)}, {number(value.high)}]"
    return text


def _csv(leaderboard: Leaderboard, split: Split) -> str:
    """Write one line a row, floats in full; what is missing is empty."""
    metrics = list(
        dict.fromkeys(
            (task, metric)
            for row in leaderboard.rows
            if split in row.splits
            for task, values in row.splits[split].tasks.items()
            for metric in values
        )
    )
    ends = ("", "_low", "_high")
    header = ["name", "kind", "trial", "split", *(f"objective{end}" for end in ends)]
    for task, metric in metrics:
        header += [f"{task}.{metric}{end}" for end in (*ends, "_n")]
    costs, conditions = leaderboard.campaign.costs, leaderboard.conditions
    header += ["net"] if costs else []
    header += [f"cost.{cost}" for cost in costs]
    header += [f"missed.{condition.task}" for condition in conditions]
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([spreadsheet_cell(text) for text in header])
    for row in leaderboard.rows:
        scores = row.splits.get(split)
        trial = "" if row.trial is None else str(row.trial)
        cells = [spreadsheet_cell(plain(row.name)), row.kind, trial, split]
        cells += _full(None if scores is None else scores.objective)
        for task, metric in metrics:
            value = None if scores is None else scores.tasks.get(task, {}).get(metric)
            cells += [*_full(value), "" if value is None else str(value.n)]
        if costs:
            spent = {} if scores is None else scores.costs
            cells.append(_exact(None if scores is None else scores.net))
            cells += [_exact(spent.get(cost)) for cost in costs]
        missed = () if scores is None else scores.violations
        cells += [_exact(one) for one in (missed or (None,) * len(conditions))]
        writer.writerow(cells)
    return stream.getvalue()


def _comparison_csv(compared: Comparison) -> str:
    """Write one line a campaign; differences are to the first."""
    ends = ("", "_low", "_high")
    header = ["campaign", "row", "split", "trials", *(f"objective{end}" for end in ends)]
    for goal in compared.goals:
        header += [f"{goal.task}.{goal.report}{end}" for end in ends]
    header += ["difference", "difference_low", "difference_high", "p", "p_corrected"]
    tested = {one.label: one for one in compared.differences}
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([spreadsheet_cell(text) for text in header])
    for entry in compared.entries:
        cells = [spreadsheet_cell(plain(text)) for text in (entry.label, entry.row)]
        cells += [compared.split, str(entry.trials), *_full(entry.objective)]
        for goal in compared.goals:
            cells += _full(entry.tasks[goal.task])
        one = tested.get(entry.label)
        if one is None:
            cells += [""] * 5
        else:
            test = one.overall
            cells += [
                repr(x) for x in (test.difference, test.low, test.high, test.p, one.p_corrected)
            ]
        writer.writerow(cells)
    return stream.getvalue()


def _full(value: Value | None) -> list[str]:
    parts = (None,) * 3 if value is None else (value.value, value.low, value.high)
    return [_exact(part) for part in parts]


def _exact(number: float | None) -> str:
    return "" if number is None else repr(number)
