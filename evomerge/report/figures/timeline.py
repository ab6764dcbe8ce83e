"""Who did what when: a line a worker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from evomerge.report.figures.drawing import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    ORANGE,
    RED,
    Drawing,
    axis,
    drawing,
    number,
    short,
    text,
)
from evomerge.report.material import Material
from evomerge.report.timeline import Span, StudyClock

MOST = 1_500
"""Bars that are drawn; of more spans the time is cut, and bars are shares of the work in each part."""
_LINE = 30


class _Bar(NamedTuple):
    worker: str
    start: float
    seconds: float
    text: str


_Bars = dict[str, list[_Bar]]
"""By group, a key of `_COLOURS`."""


def timeline_figure(material: Material) -> Drawing | None:
    """Draw what each worker did; None where it is not known when anything began."""
    spans = material.spans
    if not spans:
        return None
    clock = StudyClock.of(spans)
    workers = list(dict.fromkeys(span.worker for span in spans))
    bars = _one_each(spans, clock) if len(spans) <= MOST else _shares(spans, clock, len(workers))
    traces = [_trace(name, some, workers) for name, some in bars.items() if some]
    traces += [_crosses(bars["failed"], workers)] if bars["failed"] else []
    yaxis = axis(
        tickvals=list(range(len(workers))),
        ticktext=[short(worker) for worker in workers],
        range=[len(workers) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
    )
    return drawing(
        traces,
        height=110 + max(_LINE * min(len(workers), 16), 8 * len(workers)),
        xaxis=axis("seconds", zeroline=False, rangemode="tozero"),
        yaxis=yaxis,
        barmode="overlay",
        shapes=_pauses(clock),
    )


_COLOURS = {
    "leaderboard": INK,
    "gradients": GREEN,
    "trials": BLUE,
    "races lost": ORANGE,
    "failed": RED,
}


def _group(span: Span) -> str:
    if span.state == "failed":
        return "failed"
    if span.state == "pruned":
        return "races lost"
    return {"trial": "trials", "gradient step": "gradients", "row": "leaderboard"}[span.work]


def _one_each(spans: Sequence[Span], clock: StudyClock) -> _Bars:
    found: _Bars = {name: [] for name in _COLOURS}
    for span in spans:
        row = f" on {span.split}" if span.work == "row" else ""
        said = f"{span.name}{row}" + (f": {span.reason}" if span.reason else "")
        bar = _Bar(span.worker, clock(span.began), span.seconds, text(said))
        found[_group(span)].append(bar)
    return found


def _shares(spans: Sequence[Span], clock: StudyClock, workers: int) -> _Bars:
    """Cut the time into parts; in each, a worker's work stands by group, not in the order of its time."""
    groups = {_group(span) for span in spans}
    whole = max(clock(span.ended) for span in spans)
    length = whole / max(1, MOST // (workers * len(groups)))
    parts: dict[tuple[str, int], list[Span]] = defaultdict(list)
    for span in spans:
        parts[span.worker, int(clock(span.began) / length)].append(span)
    found: _Bars = {name: [] for name in _COLOURS}
    for (worker, _), some in parts.items():
        start = clock(some[0].began)
        for name in _COLOURS:
            alike = [span for span in some if _group(span) == name]
            if alike:
                seconds = sum(span.seconds for span in alike)
                first = text(alike[0].name)
                said = first if len(alike) == 1 else f"{first} and {len(alike) - 1} more"
                found[name].append(_Bar(worker, start, seconds, said))
                start += seconds
    return found


def _trace(name: str, bars: Sequence[_Bar], workers: Sequence[str]) -> Drawing:
    place = {worker: at for at, worker in enumerate(workers)}
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": [place[bar.worker] for bar in bars],
        "base": [number(bar.start, 2) for bar in bars],
        "x": [number(bar.seconds, 2) for bar in bars],
        "text": [bar.text for bar in bars],
        "textposition": "none",
        "hovertemplate": "%{text}<br>from %{base} s, %{x} s<extra></extra>",
        "width": 0.75,
        "marker": {"color": _COLOURS[name], "line": {"width": 0}},
    }


def _crosses(bars: Sequence[_Bar], workers: Sequence[str]) -> Drawing:
    """Mark failures, which may be too short to be seen."""
    place = {worker: at for at, worker in enumerate(workers)}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "failed",
        "showlegend": False,
        "x": [number(bar.start + bar.seconds, 2) for bar in bars],
        "y": [place[bar.worker] for bar in bars],
        "text": [bar.text for bar in bars],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "symbol": "x",
            "color": RED,
            "size": 7,
            "line": {"color": "#ffffff", "width": 1},
        },
    }


def _pauses(clock: StudyClock) -> list[Drawing]:
    """Draw a line where the study was interrupted."""
    return [
        {
            "type": "line",
            "xref": "x",
            "yref": "paper",
            "x0": number(clock(start), 2),
            "x1": number(clock(start), 2),
            "y0": 0,
            "y1": 1,
            "line": {"color": FAINT, "width": 2, "dash": "dash"},
        }
        for start, _ in clock.pauses
    ]
