"""What dashboards show of a trial of the study: attributes, and a note."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evomerge.candidate.trial import Entry, Outcome
from evomerge.store.records import by_task

NOTED = 1000
"""Trials with a note: for each trial optuna-dashboard reads through all notes, 1.4 s for these."""


def attributes(
    outcome: Outcome, values: Sequence[float] | None, pruned_after: int | None
) -> dict[str, Any]:
    """Return its scores by task; of one that was pruned its estimates; or why it failed."""
    if outcome.failure is not None:
        return {"failure": f"{outcome.failure.kind}: {outcome.failure.reason}"}
    if pruned_after is not None:
        return {"estimate": list(values or ()), "pruned after items": pruned_after}
    return dict(by_task(outcome))


def note(folder: Path, entry: Entry, outcome: Outcome) -> str:
    """Return in Markdown what was tried, why it has no scores, and the commands that give its recipe.

    Empty behind the first `NOTED` trials, whose attributes say as much.
    """
    if entry.number is None or entry.number >= NOTED:
        return ""
    candidate, where = outcome.candidate or entry.candidate, shlex.quote(str(folder))
    lines = [f"Method: `{candidate.label()}`"]
    if outcome.failure is not None:
        lines.append(f"Failed, {outcome.failure.kind}: {_code(outcome.failure.reason)}")
    if outcome.pruned is not None:
        lines.append(f"Pruned: {_code(outcome.pruned.reason)}")
    lines.append(f"Recipe: `evomerge report {where} --trial {entry.number}`")
    lines.append(f"Model: `evomerge merge {where} OUT_DIR --trial {entry.number}`")
    return "\n\n".join(lines) + "\n"


def _code(text: str) -> str:
    return f"`{text.replace('`', chr(39))}`"
