"""What a reader of a leaderboard must not overlook: a winner below a naive merge, tasks that tell nothing."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.candidate.trial import Split
from evomerge.objective import total_violation
from evomerge.report.rows import Goal, Row, higher_is_better
from evomerge.report.significance import FINAL


def warning_notes(rows: Sequence[Row], goals: Sequence[Goal], split: Split) -> list[str]:
    """Return a plain sentence for each of them.

    Args:
        rows: Of the leaderboard.
        goals: The objectives.
        split: The items that are shown.
    """
    return [*_naive_merges_above(rows, goals, split), *zero_notes(rows, goals, split)]


def zero_notes(rows: Sequence[Row], goals: Sequence[Goal], split: Split) -> list[str]:
    """Say of each task that is 0 for every model that it is; the metric is the one that counts there."""
    notes = []
    for goal in goals:
        metric, upward, _ = goal.side(searched=split == "search")
        scored = [row.splits[split].tasks.get(goal.task, {}) for row in rows if split in row.splits]
        values = [metrics[metric].value for metrics in scored if metric in metrics]
        if upward and len(values) > 1 and not any(values):
            notes.append(
                f"{goal.task}: every model has 0 of {metric} on the {split} items, so the task tells no "
                "model from another; look at its prompts and answers, or leave it out"
            )
    return notes


def readings_note(readings: int) -> str | None:
    """Say how often the holdout items were read, where that is more than once."""
    if readings < 2:
        return None
    return (
        f"the {FINAL} items were read {readings} times, each time for a new winner: of the scores on them "
        "the best is no longer unbiased, so expect a little less on fresh items"
    )


def _naive_merges_above(rows: Sequence[Row], goals: Sequence[Goal], split: Split) -> list[str]:
    """Compare as winners are chosen: conditions first, then the mean less costs."""
    notes = []
    ranked = [
        (rank, row)
        for row in rows
        if row.kind == "baseline" and (rank := _rank(row, goals, split)) is not None
    ]
    for winner in (row for row in rows if row.kind == "winner"):
        own = _rank(winner, goals, split)
        above, best = max(ranked, key=lambda pair: pair[0], default=(own, winner))
        if own is not None and above is not None and above > own:
            notes.append(
                f"{winner.name}, the winner, is below a naive merge on the {split} items: {best.name} has "
                f"{_reached(best, split)}, {winner.name} {_reached(winner, split)}"
            )
    return notes


def _rank(row: Row, goals: Sequence[Goal], split: Split) -> tuple[float, float] | None:
    scores = row.splits.get(split)
    if scores is None or scores.objective is None:
        return None
    sign = 1.0 if higher_is_better(goals) else -1.0
    value = sign * scores.objective.value if scores.net is None else scores.net
    return -total_violation(scores.violations), value


def _reached(row: Row, split: Split) -> str:
    scores = row.splits[split]
    assert scores.objective is not None  # it has a rank
    value = scores.objective.value if scores.net is None else scores.net
    missed = " and misses a condition" if total_violation(scores.violations) > 0 else ""
    return f"{value:.3f}{missed}"
