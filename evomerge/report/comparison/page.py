"""A comparison as a page: the verdict, the winners, the searches at equal effort, the settings."""

from __future__ import annotations

from dataclasses import replace

from evomerge.report.comparison.comparable import Sides
from evomerge.report.comparison.comparison import Comparison
from evomerge.report.comparison.layout import (
    UNITS,
    effort_grid,
    findings,
    remarks,
    settings_grid,
    standings_grid,
)
from evomerge.report.curve import Axis
from evomerge.report.figures.drawing import CYCLE, Drawing, axis, drawing, number, numbers, short
from evomerge.report.page import Callout, Listing, Plot, Section, write_page


def comparison_page(compared: Comparison, sides: Sides) -> str:
    """Write a comparison as one HTML file.

    Args:
        compared: What was found.
        sides: The campaigns that were compared, for their curves.
    """
    subtitle = " · ".join(one.label for one in compared.entries)
    return write_page("Campaigns compared", sections(compared, sides), subtitle=subtitle)


def sections(compared: Comparison, sides: Sides) -> list[Section]:
    """Return the page's parts."""
    standings = replace(standings_grid(compared), notes=())
    axes = dict.fromkeys(one.axis for one in compared.checkpoints)
    return [
        Section("verdict", "Verdict", [Callout(text) for text in findings(compared)]),
        Section("winners", "Winners", [standings, Listing(remarks(compared))]),
        Section(
            "effort",
            "Searches at equal effort",
            [effort_grid(compared), *(_plot(by, sides) for by in axes)],
        ),
        Section("settings", "Settings", [settings_grid(compared)]),
    ]


def _plot(by: Axis, sides: Sides) -> Plot:
    unit = UNITS[by]
    return Plot(
        f"best-by-{by.replace('_', '-')}",
        f"Best so far by {unit}",
        f"The best value on the search items that each search had found, against its {unit}.",
        _curves(by, sides),
    )


def _curves(by: Axis, sides: Sides) -> Drawing:
    traces = []
    for place, (label, side) in enumerate(sides.items()):
        curve = side.curve
        points = [*curve.improvements, *curve.points[-1:]]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": short(label, 40),
                "x": [number(getattr(point, by), 1) for point in points],
                "y": numbers(point.best for point in points),
                "hovertemplate": "%{y} after %{x}<extra>%{fullData.name}</extra>",
                "line": {
                    "color": CYCLE[place % len(CYCLE)],
                    "width": 2,
                    "shape": "hv",
                    "dash": ("solid", "dash", "dot", "dashdot")[place % 4],
                },
            }
        )
    return drawing(
        traces,
        height=360,
        xaxis=axis(UNITS[by], zeroline=False),
        yaxis=axis("best so far", zeroline=False),
    )
