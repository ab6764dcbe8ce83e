"""Records as a table for the terminal, Markdown, JSON or CSV: one a line, numbers in full in the last two."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from io import StringIO

from evomerge.errors import UserError, nearest
from evomerge.report.escape import markdown_cell, plain, spreadsheet_cell
from evomerge.report.layout import number

Cell = str | int | float | bool | None
FORMATS = ("table", "markdown", "json", "csv")


def listing(records: Sequence[Mapping[str, Cell]], format: str = "table") -> str:
    """Write records; columns stand in the order in which they first occur, what is missing is blank.

    Args:
        records: Column → value.
        format: `table`, `markdown`, `json` or `csv`.

    Raises:
        UserError: An unknown format.
    """
    if format not in FORMATS:
        raise UserError(f'unknown format "{format}"; {nearest(format, FORMATS)}', field="--format")
    if format == "json":
        return json.dumps([dict(one) for one in records], indent=2, ensure_ascii=False) + "\n"
    columns = list(dict.fromkeys(column for record in records for column in record))
    if format == "csv":
        return _csv(columns, records)
    cells = [[_shown(record.get(column)) for column in columns] for record in records]
    return _markdown(columns, cells) if format == "markdown" else _table(columns, cells)


def _csv(columns: Sequence[str], records: Sequence[Mapping[str, Cell]]) -> str:
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([spreadsheet_cell(column) for column in columns])
    for record in records:
        writer.writerow([_exact(record.get(column)) for column in columns])
    return stream.getvalue()


def _markdown(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(map(markdown_cell, columns)) + " |", "| --- " * len(columns) + "|"]
    lines += ["| " + " | ".join(map(markdown_cell, row)) + " |" for row in cells]
    return "\n".join(lines) + "\n"


def _table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    shown = [[plain(text) for text in row] for row in (columns, *cells)]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    ]
    return "\n".join(lines) + "\n"


def _shown(value: Cell) -> str:
    if isinstance(value, float):
        return number(value)
    return "" if value is None else str(value)


def _exact(value: Cell) -> str:
    if isinstance(value, str):
        return spreadsheet_cell(plain(value))
    return "" if value is None else repr(value)
