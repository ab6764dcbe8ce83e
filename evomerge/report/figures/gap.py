"""How much of the scores on the items that were searched on is left on fresh ones."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.candidate.trial import SPLITS
from evomerge.report.evidence import best
from evomerge.report.figures.drawing import (
    OF_KIND,
    SIGN_OF_KIND,
    Drawing,
    axis,
    drawing,
    number,
    numbers,
    short,
)
from evomerge.report.material import Material
from evomerge.report.rows import Row
from evomerge.report.scores import Value


def gap_figure(material: Material) -> Drawing | None:
    """Draw the mean of some models on search, select and holdout items; None while there is one split only.

    By the reported metrics or, where the search did not compute those, by the searched ones.
    """
    searched_only = any(
        "search" in row.splits and row.splits["search"].objective is None
        for row in material.board.winners
    )
    side = "searched" if searched_only else "objective"
    traces = []
    for name, row in _models(material):
        known = [
            (split, value) for split in SPLITS if (value := _value(row, split, side)) is not None
        ]
        if len(known) > 1:
            traces.append(_line(name, row, known))
    if not traces:
        return None
    return drawing(
        traces,
        height=360,
        xaxis=axis(
            type="category", categoryorder="array", categoryarray=list(SPLITS), showgrid=False
        ),
        yaxis=axis(
            f"mean of the {'searched' if searched_only else 'reported'} metrics", zeroline=False
        ),
    )


def _models(material: Material) -> list[tuple[str, Row]]:
    """Return the winner, and the best of each other kind."""
    rows, split = material.board.rows, material.split
    found = [(f"winner: {short(row.name)}", row) for row in material.board.winners]
    for kind, title in (
        ("finalist", "best finalist"),
        ("baseline", "best naive merge"),
        ("expert", "best expert"),
    ):
        leader = best([row for row in rows if row.kind == kind], split)
        if leader is not None and not (kind == "finalist" and found):
            found.append((f"{title}: {short(leader.name)}", leader))
    return found + [("base", row) for row in rows if row.kind == "base"]


def _value(row: Row, split: str, side: str) -> Value | None:
    scores = next((scores for name, scores in row.splits.items() if name == split), None)
    return None if scores is None else getattr(scores, side)


def _line(name: str, row: Row, known: Sequence[tuple[str, Value]]) -> Drawing:
    values = [value for _, value in known]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": [split for split, _ in known],
        "y": numbers(value.value for value in values),
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [
                number((one.value if one.high is None else one.high) - one.value) for one in values
            ],
            "arrayminus": [
                number(one.value - (one.value if one.low is None else one.low)) for one in values
            ],
            "thickness": 1,
            "width": 3,
        },
        "hovertemplate": "%{x}: %{y}<extra></extra>",
        "line": {"color": OF_KIND[row.kind], "width": 2},
        "marker": {"color": OF_KIND[row.kind], "symbol": SIGN_OF_KIND[row.kind], "size": 9},
    }
