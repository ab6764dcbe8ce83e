"""What the members of the winner do: who answers what, how much each counts, whose layers stand where."""

from __future__ import annotations

from evomerge.candidate import Mixture, Stack
from evomerge.candidate.ensemble import Ensemble
from evomerge.report.figures.drawing import (
    BLUE,
    CYCLE,
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


def members_figure(material: Material) -> Drawing | None:
    """Draw routing shares by task, weights of a mix, a path of layers, or how well gates route.

    None: the winner is a merge.
    """
    shown = material.shown
    candidate = None if shown is None else shown.recipe
    if isinstance(candidate, Stack):
        return _path(candidate)
    if isinstance(candidate, Ensemble):
        mix = candidate.mix
        return _routing(material) if mix is None else _weights(mix.running)
    if isinstance(candidate, Mixture) and candidate.fit is not None and candidate.fit.accuracy:
        return _gates(candidate.fit.accuracy)
    return None


def _routing(material: Material) -> Drawing | None:
    """Draw the share of every task's items that each member answers; None before the winner is scored."""
    routing = material.board.routing.get(material.split)
    if routing is None:
        return None
    tasks = list(routing.items)
    labels = [short(name) for name in short_names(tasks)]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": short(member),
            "y": list(range(len(tasks))),
            "x": numbers(
                routing.items[task][at] / (sum(routing.items[task]) or 1) for task in tasks
            ),
            "text": [text(member)] * len(tasks),
            "textposition": "none",
            "hovertemplate": "%{text}: %{x:.0%}<extra></extra>",
            "marker": {
                "color": CYCLE[at % len(CYCLE)],
                "pattern": {"shape": "/" if at >= len(CYCLE) else ""},
            },
        }
        for at, member in enumerate(routing.members)
        if any(counts[at] for counts in routing.items.values())
    ]
    title = f"share of the {material.split} items"
    return _bars(traces, labels, axis(title, range=[0, 1], tickformat=".0%"), barmode="stack")


def _weights(weights: dict[str, float]) -> Drawing:
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": numbers(weights.values()),
        "y": list(range(len(weights))),
        "text": [text(name) for name in weights],
        "textposition": "none",
        "hovertemplate": "%{text}: %{x}<extra></extra>",
        "marker": {"color": BLUE},
    }
    return _bars([trace], [short(name) for name in weights], axis("weight"), showlegend=False)


def _bars(traces: list[Drawing], labels: list[str], xaxis: Drawing, **layout: object) -> Drawing:
    yaxis = axis(
        tickvals=list(range(len(labels))),
        ticktext=labels,
        range=[len(labels) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
    )
    return drawing(traces, height=110 + 30 * len(labels), xaxis=xaxis, yaxis=yaxis, **layout)


def _path(stack: Stack) -> Drawing:
    """Draw whose layer stands at each place, and which."""
    members = list(stack.members)
    trace = {
        "type": "scatter",
        "mode": "lines+markers" if len(stack.path) > 32 else "lines+markers+text",
        "x": list(range(len(stack.path))),
        "y": [members.index(step.member) for step in stack.path],
        "text": [str(step.layer) for step in stack.path],
        "customdata": [number(step.scale) for step in stack.path],
        "textposition": "top center",
        "hovertemplate": "layer %{text} at place %{x}, its input times %{customdata}<extra></extra>",
        "line": {"color": BLUE, "width": 1, "dash": "dot"},
        "marker": {"color": BLUE, "symbol": "square", "size": 10},
    }
    yaxis = axis(
        tickvals=list(range(len(members))),
        ticktext=[short(name) for name in members],
        range=[len(members) - 0.4, -0.6],
        zeroline=False,
    )
    xaxis = axis(
        "place in the stack (numbers: the member's layer)",
        dtick=-(-len(stack.path) // 12),
        showgrid=False,
        zeroline=False,
    )
    height = 90 + 44 * len(members)
    return drawing([trace], height=height, xaxis=xaxis, yaxis=yaxis, showlegend=False)


def _gates(accuracy: tuple[float, ...]) -> Drawing:
    trace = {
        "type": "bar",
        "x": list(range(len(accuracy))),
        "y": numbers(accuracy),
        "hovertemplate": "layer %{x}: %{y}<extra></extra>",
        "marker": {"color": BLUE},
    }
    yaxis = axis("tokens routed to the best expert", range=[0, 1], tickformat=".0%")
    return drawing([trace], height=300, xaxis=axis("layer"), yaxis=yaxis, showlegend=False)
