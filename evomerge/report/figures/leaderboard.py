"""Base, experts, naive merges and the winner on every task, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

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
    text,
)
from evomerge.report.grid import short_names
from evomerge.report.material import Material
from evomerge.report.rows import Row
from evomerge.report.scores import Value

_LINE = 58
"""Pixels that a task takes."""
_Line = tuple[str, bool, Callable[[Row], Value | None]]
"""What a line shows: its label, whether more is better, and the value of a row."""


def leaderboard_figure(material: Material) -> Drawing | None:
    """Draw a line a task, and one for the mean where there are several; a model is a point on each."""
    board, split = material.board, material.split
    rows = [row for row in board.rows if split in row.splits]
    lines = [line for line in _lines(material) if any(line[2](row) for row in rows)]
    if not lines:
        return None
    values = [value.value for line in lines for row in rows if (value := line[2](row)) is not None]
    own_scales = len(lines) > 1 and not all(0 <= value <= 1 for value in values)
    traces = []
    for name, kind, offset, some, whiskers in _groups(material, rows):
        traces += _trace(name, kind, offset, some, lines, whiskers=whiskers, own=own_scales)
    height = 90 + _LINE * len(lines)
    if not own_scales:
        ticks = [label for label, *_ in lines]
        yaxis = axis(
            tickvals=list(range(len(lines))),
            ticktext=ticks,
            range=[len(lines) - 0.5, -0.5],
            showgrid=False,
            zeroline=False,
        )
        return drawing(
            traces, height=height, xaxis=axis(f"score on the {split} items"), yaxis=yaxis
        )
    axes = _axes(lines)
    first = axes.pop("xaxis"), axes.pop("yaxis")
    return drawing(traces, height=height * 3 // 2, xaxis=first[0], yaxis=first[1], **axes)


def _lines(material: Material) -> list[_Line]:
    """Return the mean, where it is of several, and every objective."""
    split, goals = material.split, material.board.campaign.goals
    found: list[_Line] = []
    if len(goals) > 1:
        upward = any(goal.higher_is_better for goal in goals)
        found.append(("mean", upward, lambda row: row.splits[split].objective))
    names = short_names([goal.task for goal in goals])
    for name, goal in zip(names, goals, strict=True):
        label = short(name) + ("" if goal.higher_is_better else " ↓")
        found.append((label, goal.higher_is_better, partial(Row.reported, split=split, goal=goal)))
    return found


def _groups(
    material: Material, rows: Sequence[Row]
) -> list[tuple[str, str, float, list[Row], bool]]:
    """Return what is drawn alike: name, kind, distance from the line, rows, and whether with intervals."""
    split = material.split
    found = []
    for kind, offset, title, others in (
        ("winner", -0.3, "winner", ""),
        ("baseline", -0.1, "best naive merge", "other naive merges"),
        ("expert", 0.1, "best expert", "other experts"),
        ("base", 0.3, "base", ""),
        ("finalist", -0.2, "finalists", ""),
    ):
        some = [row for row in rows if row.kind == kind]
        if kind == "finalist" and any(row.kind == "winner" for row in rows):
            found.append((title, kind, offset, some, False))
            continue
        leader = best(some, split) or next(iter(some), None)
        if leader is not None:
            name = title if kind in ("base", "finalist") else f"{title}: {short(leader.name)}"
            found.append((name, kind, offset, [leader], True))
        if others and len(some) > 1:
            found.append((others, kind, offset, [row for row in some if row is not leader], False))
    return [one for one in found if one[3]]


def _trace(
    name: str,
    kind: str,
    offset: float,
    rows: Sequence[Row],
    lines: Sequence[_Line],
    *,
    whiskers: bool,
    own: bool,
) -> list[Drawing]:
    """Return the points of some rows; where every line has a scale of its own, a trace a line."""
    known = [
        (at, row, value)
        for at, (_, _, value_of) in enumerate(lines)
        for row in rows
        if (value := value_of(row)) is not None
    ]
    parts = [[one for one in known if one[0] == at] for at in range(len(lines))] if own else [known]
    found = []
    for at, part in enumerate(parts):
        trace: Drawing = {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "legendgroup": name,
            "showlegend": at == 0,
            "x": numbers(value.value for *_, value in part),
            "y": [offset if own else number(place + offset) for place, *_ in part],
            "text": [text(row.name) for _, row, _ in part],
            "hovertemplate": "%{text}: %{x}<extra></extra>",
            "marker": {
                "color": OF_KIND[kind],
                "symbol": SIGN_OF_KIND[kind],
                "size": 10 if whiskers else 6,
                "opacity": 1 if whiskers else 0.55,
            },
        }
        if kind == "finalist" and not whiskers:
            trace["visible"] = "legendonly"
        if whiskers and any(value.low is not None for *_, value in part):
            trace["error_x"] = _interval([value for *_, value in part])
        found.append(trace | ({"xaxis": f"x{at + 1}", "yaxis": f"y{at + 1}"} if at else {}))
    return found


def _interval(values: Sequence[Value]) -> Drawing:
    """Return the 95 % intervals, as distances from the values."""
    above = [0.0 if one.high is None else one.high - one.value for one in values]
    below = [0.0 if one.low is None else one.value - one.low for one in values]
    return {
        "type": "data",
        "symmetric": False,
        "array": numbers(above),
        "arrayminus": numbers(below),
        "thickness": 1.5,
        "width": 3,
    }


def _axes(lines: Sequence[_Line]) -> dict[str, Drawing]:
    """Return a pair of axes for each line, the first at the top."""
    found: dict[str, Drawing] = {}
    share = 1 / len(lines)
    for at, (label, *_) in enumerate(lines):
        number_ = "" if at == 0 else str(at + 1)
        top = 1 - at * share
        domain = [round(top - share * 0.6, 4), round(top, 4)]
        found[f"xaxis{number_}"] = axis(anchor=f"y{number_}", zeroline=False)
        found[f"yaxis{number_}"] = axis(
            anchor=f"x{number_}",
            domain=domain,
            range=[0.5, -0.5],
            tickvals=[0],
            ticktext=[label],
            showgrid=False,
            zeroline=False,
        )
    return found
