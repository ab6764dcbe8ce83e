"""Explain the winner of a campaign. Light, as `campaigns` is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.progress import Display, Style, shown_by
from evomerge.workers.imports import import_quickly

if TYPE_CHECKING:
    from evomerge.explanation.explanation import Explanation


def explain(
    folder: str | Path,
    *,
    workers: int | None = None,
    random: bool = False,
    display: Display | Style = "none",
) -> Explanation:
    """Say why the winner of a finished campaign works: what each expert adds, and where they conflict.

    The winner without each expert and each group of layers is scored on the select items, once: what was
    scored is kept in the results folder. `explanation.json` and `explanation.md` are written there.

    Args:
        folder: The results folder.
        workers: How many score; 0: this process; None: as many as the campaign had.
        random: Score the winner's numbers on random task vectors of the same norms, too.
        display: How progress is shown, as for `search`.

    Returns:
        What was found; its `summary` is all of it in a paragraph.

    Raises:
        UserError: The folder holds no finished campaign, is in use, or its models or tasks changed.
    """
    with shown_by(display) as shown:
        found: Explanation = import_quickly("evomerge.explanation.explain").explain(
            Path(folder), workers=workers, random=random, display=shown
        )
    return found
