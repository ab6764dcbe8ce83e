"""A grid as an HTML table, for notebooks."""

from __future__ import annotations

from html import escape

from evomerge.candidate.trial import Split
from evomerge.report.escape import plain
from evomerge.report.layout import Grid, layout, number
from evomerge.report.leaderboard import Leaderboard
from evomerge.report.rows import Value


def html_table(leaderboard: Leaderboard, split: Split | None = None) -> str:
    """Write a leaderboard as a table with its notes below; the winner and each column's best are bold.

    Args:
        leaderboard: What to write.
        split: Which items; default the last of search, select, holdout that has scores.
    """
    return html_grid(layout(leaderboard, split))


def html_grid(grid: Grid) -> str:
    """Write a grid; all text is escaped."""
    headers = "".join(f"<th>{_text(column.header)}</th>" for column in grid.columns)
    rows = []
    for line in grid.lines:
        name = _bold(_text(line.name), line.kind == "winner")
        cells = "".join(
            f"<td>{_value(value, grid.best(index), grid.columns[index].interval)}</td>"
            for index, value in enumerate(line.values)
        )
        rows.append(f"<tr><th>{name}</th>{cells}</tr>")
    notes = "".join(f"<li>{_text(note)}</li>" for note in grid.notes)
    return (
        f"<table><caption>{_text(grid.title)}</caption>"
        f"<thead><tr><th></th>{headers}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f"<ul>{notes}</ul>"
    )


def _value(value: Value | None, best: float | None, interval: bool) -> str:
    if value is None:
        return ""
    text = _bold(number(value.value), value.value == best)
    if interval and value.low is not None and value.high is not None:
        text += f" [{number(value.low)}, {number(value.high)}]"
    return text


def _bold(text: str, bold: bool) -> str:
    return f"<b>{text}</b>" if bold else text


def _text(text: str) -> str:
    return escape(plain(text))
