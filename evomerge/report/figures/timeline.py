"""Who did what when: a line a worker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
from evomerge.report.timeline import Clock, Span

MOST = 1_500
"""Bars that are drawn; of more, those of a kind that follow each other closely are drawn as one."""
_LINE = 30


@dataclass
class _Bar:
    """Spans of a kind that follow each other."""

    start: float
    stop: float
    first: Span
    count: int = 1

    def label(self) -> str:
        one = self.first
        if self.count > 1:
            return f"{text(one.name)} and {self.count - 1} more"
        row = f" on {one.split}" if one.work == "row" else ""
        return text(f"{one.name}{row}" + (f": {one.reason}" if one.reason else ""))


def timeline_figure(material: Material) -> Drawing | None:
    """Draw what each worker did; None where it is not known when anything began."""
    spans = material.spans
    if not spans:
        return None
    clock = Clock.of(spans)
    workers = list(dict.fromkeys(span.worker for span in spans))
    groups: dict[str, list[Span]] = {name: [] for name in _COLOURS}
    for span in spans:
        groups[_group(span)].append(span)
    whole = clock(max(span.ended for span in spans))
    gap, drawn = 0.0, _drawn(groups, clock, 0.0)
    while sum(map(len, drawn.values())) > MOST:
        gap = 2 * gap or whole / 2_000
        drawn = _drawn(groups, clock, gap)
    traces = [_trace(name, bars, workers) for name, bars in drawn.items() if bars]
    traces += [_crosses(drawn["failed"], workers)] if drawn["failed"] else []
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
        bargap=0.25,
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


def _drawn(
    groups: dict[str, list[Span]], clock: Clock, gap: float
) -> dict[str, list[tuple[str, _Bar]]]:
    return {name: _bars(some, clock, gap) for name, some in groups.items()}


def _bars(spans: Iterable[Span], clock: Clock, gap: float) -> list[tuple[str, _Bar]]:
    """Return bars by worker; spans are one bar where no more than `gap` seconds are between them."""
    found: dict[str, list[_Bar]] = defaultdict(list)
    for span in spans:
        start, stop = clock(span.began), clock(span.ended)
        bars = found[span.worker]
        if gap and bars and start - bars[-1].stop <= gap:
            bars[-1].stop = max(bars[-1].stop, stop)
            bars[-1].count += 1
        else:
            bars.append(_Bar(start, stop, span))
    return [(worker, bar) for worker, bars in found.items() for bar in bars]


def _trace(name: str, bars: Sequence[tuple[str, _Bar]], workers: Sequence[str]) -> Drawing:
    place = {worker: at for at, worker in enumerate(workers)}
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": [place[worker] for worker, _ in bars],
        "base": [number(bar.start, 2) for _, bar in bars],
        "x": [number(bar.stop - bar.start, 2) for _, bar in bars],
        "text": [bar.label() for _, bar in bars],
        "textposition": "none",
        "hovertemplate": "%{text}<br>from %{base} s, %{x} s<extra></extra>",
        "marker": {"color": _COLOURS[name], "line": {"width": 0}},
    }


def _crosses(bars: Sequence[tuple[str, _Bar]], workers: Sequence[str]) -> Drawing:
    """Mark failures, which may be too short to be seen."""
    place = {worker: at for at, worker in enumerate(workers)}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": "failed",
        "showlegend": False,
        "x": [number(bar.stop, 2) for _, bar in bars],
        "y": [place[worker] for worker, _ in bars],
        "text": [bar.label() for _, bar in bars],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "symbol": "x",
            "color": RED,
            "size": 7,
            "line": {"color": "#ffffff", "width": 1},
        },
    }


def _pauses(clock: Clock) -> list[Drawing]:
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
