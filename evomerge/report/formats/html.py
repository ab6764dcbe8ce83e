"""Reports as HTML tables, for notebooks."""

from __future__ import annotations

from html import escape

from evomerge.report.grid import Cell, Grid, Report, plain


def write(report: Report, *, width: int | None = None, color: bool = False) -> str:
    """Write its tables with their notes below; all text is escaped."""
    return "".join(map(_table, report.grids)) + "\n"


def _table(grid: Grid) -> str:
    headers = "".join(f"<th>{_text(header)}</th>" for header in grid.headers)
    rows = []
    for line in grid.lines:
        name = _bold(_text(line.name), line.kind == "winner")
        cells = "".join(f"<td>{_value(cell)}</td>" for cell in line.cells)
        rows.append(f"<tr><th>{name}</th>{cells}</tr>")
    notes = "".join(f"<li>{_text(note)}</li>" for note in grid.notes)
    return (
        f"<table><caption>{_text(grid.title)}</caption>"
        f"<thead><tr>{headers}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        f"<ul>{notes}</ul>"
    )


def _value(cell: Cell) -> str:
    text = _bold(_text(cell.text), cell.best)
    return f"{text} {cell.interval}" if cell.interval else text


def _bold(text: str, bold: bool) -> str:
    return f"<b>{text}</b>" if bold else text


def _text(text: str) -> str:
    return escape(plain(text))
