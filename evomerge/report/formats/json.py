"""Reports as JSON."""

from __future__ import annotations

import json

from evomerge.report.grid import Report


def write(report: Report, *, width: int | None = None, color: bool = False) -> str:
    """Write its data, numbers in full."""
    return json.dumps(report.data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
