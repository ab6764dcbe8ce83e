"""The best so far, against trials, item evaluations or seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evomerge.report.curve import AXES, Axis, Point
from evomerge.report.evidence import best
from evomerge.report.figures.drawing import (
    BLUE,
    INK,
    ORANGE,
    RED,
    SKY,
    Drawing,
    axis,
    choice,
    drawing,
    number,
    numbers,
    short,
)
from evomerge.report.material import Material

MOST = 1_500
"""Trials that are drawn; of more every n-th."""
_NAMES: dict[Axis, str] = {
    "trials": "trials",
    "item_evaluations": "item evaluations, gradients included",
    "seconds": "seconds",
}
_BUTTONS: dict[Axis, str] = {
    "trials": "trials",
    "item_evaluations": "items",
    "seconds": "seconds",
}


def history_figure(material: Material) -> Drawing | None:
    """Draw every trial's value and the best so far; None before there is a value."""
    curve = material.curve
    tried = [point for point in curve.points if point.value is not None]
    if not tried:
        return None
    step = -(-len(tried) // MOST)
    shown = [point for place, point in enumerate(tried) if place % step == 0]
    groups = [
        ("trials", [point for point in shown if point.state == "complete"]),
        ("estimates of pruned trials", [point for point in shown if point.state == "pruned"]),
    ]
    series: list[tuple[Drawing, list[Point | None]]] = [
        (_dots(name, some), list(some)) for name, some in groups if some
    ]
    steps = [*curve.improvements, curve.points[-1]]
    if curve.improvements:
        series.append((_line("best so far", [point.best for point in steps], RED), list(steps)))
    for name, value, colour in _references(material):
        series.append((_line(name, [value, value], colour, dash="dot"), [None, curve.points[-1]]))
    traces = [trace | {"x": _places(points, AXES[0])} for trace, points in series]
    axes = [one for one in AXES if one != "seconds" or curve.total("seconds") > 0]
    menus = choice(
        [_BUTTONS[one] for one in axes],
        [
            [
                {"x": [_places(points, one) for _, points in series]},
                {"xaxis.title.text": _NAMES[one]},
            ]
            for one in axes
        ],
    )
    unit = _unit(material)
    return drawing(
        traces,
        height=400,
        xaxis=axis(_NAMES["trials"], zeroline=False),
        yaxis=axis(unit, zeroline=False),
        updatemenus=menus,
    )


def _places(points: Sequence[Point | None], by: Axis) -> list[Any]:
    """Return where points stand on an axis; None is its begin."""
    return [0 if point is None else number(getattr(point, by), 1) for point in points]


def _dots(name: str, points: Sequence[Point]) -> Drawing:
    pruned = points[0].state == "pruned"
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "y": numbers(point.value for point in points),
        "text": [f"trial {point.number}" for point in points],
        "hovertemplate": "%{text}: %{y}<extra></extra>",
        "marker": {
            "color": INK if pruned else SKY,
            "symbol": "circle-open" if pruned else "circle",
            "size": 5,
            "opacity": 0.8,
        },
    }


def _line(name: str, values: Sequence[float | None], colour: str, dash: str = "solid") -> Drawing:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "y": numbers(values),
        "hovertemplate": "%{y}<extra></extra>",
        "line": {"color": colour, "width": 2, "dash": dash, "shape": "hv"},
    }


def _references(material: Material) -> list[tuple[str, float, str]]:
    """Return the best expert and the best naive merge on the search items, where no costs come off."""
    if material.campaign.costs and material.campaign.mode == "mean":
        return []
    found = []
    for kind, title, colour in (
        ("expert", "best expert", BLUE),
        ("baseline", "best naive merge", ORANGE),
    ):
        rows = [row for row in material.board.rows if row.kind == kind]
        leader = best(rows, "search")
        scores = None if leader is None else leader.splits["search"]
        value = None if scores is None else scores.searched or scores.objective
        if leader is not None and value is not None:
            found.append((f"{title}: {short(leader.name)}", value.value, colour))
    return found


def _unit(material: Material) -> str:
    """Say what the values are."""
    metrics = {goal.metric for goal in material.campaign.objectives}
    mean = "mean " if len(material.campaign.objectives) > 1 else ""
    of = short(metrics.pop(), 24) if len(metrics) == 1 else "of the objectives"
    less = " less costs" if material.campaign.costs and material.campaign.mode == "mean" else ""
    return f"{mean}{of}{less}"
