"""Which of the searched numbers matter for the best trials."""

from __future__ import annotations

from evomerge.report.figures.drawing import BLUE, Drawing, axis, drawing, number, short, text
from evomerge.report.material import Material

MOST = 20
"""Numbers that are drawn, the most important ones."""
_LONGEST = 26


def importances_figure(material: Material) -> Drawing | None:
    """Draw a bar a number, the most important first; None while too few trials are complete."""
    found = dict(list(material.importances.items())[:MOST])
    if not found:
        return None
    readable = readable_names(list(material.importances))
    names = [readable[name] for name in found]
    labels = [short(name.replace(",", "").replace("layers ", ""), _LONGEST) for name in names]
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [number(value) for value in found.values()],
        "y": list(range(len(found))),
        "text": [text(name) for name in names],
        "textposition": "none",
        "hovertemplate": "%{text}: %{x}<extra></extra>",
        "marker": {"color": BLUE},
    }
    yaxis = axis(
        tickvals=list(range(len(found))),
        ticktext=labels,
        range=[len(found) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
    )
    return drawing(
        [trace],
        height=70 + 22 * len(found),
        xaxis=axis("share of the importance of all numbers"),
        yaxis=yaxis,
        showlegend=False,
    )


def readable_names(names: list[str]) -> dict[str, str]:
    """Return what searched numbers are called: `facts, layers 0-4, mlp` where all of them are weights."""
    parts = {name: name.split("/") for name in names}
    alike = len({each[0] for each in parts.values()}) == 1 and all(
        len(p) > 1 for p in parts.values()
    )
    return {
        name: ", ".join(map(_readable, each[1:] if alike else each)) for name, each in parts.items()
    }


def _readable(part: str) -> str:
    start, dash, stop = part.partition("-")
    is_layers = dash and start.isdecimal() and stop.isdecimal()
    return f"layers {part}" if is_layers else part
