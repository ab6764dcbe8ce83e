"""Reports as CSV, for spreadsheets."""

from __future__ import annotations

import csv
from io import StringIO

from evomerge.report.grid import Plain, Report, plain

_FORMULA = ("=", "+", "-", "@")


def write(report: Report, *, width: int | None = None, color: bool = False) -> str:
    """Write one line a record, floats in full; what is missing is empty."""
    columns = list(dict.fromkeys(column for record in report.records for column in record))
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(map(_text, columns))
    for record in report.records:
        writer.writerow(_text(record.get(column)) for column in columns)
    return stream.getvalue()


def _text(value: Plain) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    if isinstance(value, str):
        text = plain(value)
        return f"'{text}" if text.startswith(_FORMULA) else text
    return "" if value is None else repr(value)
