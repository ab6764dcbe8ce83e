"""The numbers of the winner by expert, layers and component: a heat map; rows of tensors as boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from evomerge.report.coefficients import WEIGHT, Coefficient
from evomerge.report.figures.drawing import (
    AROUND_ZERO,
    CYCLE,
    FROM_ZERO,
    Drawing,
    axis,
    choice,
    drawing,
    numbers,
    short,
    shorts,
    text,
)
from evomerge.report.material import Material

_MOST_WRITTEN = 80
"""Cells of a heat map whose numbers are written in them."""
_ROW, _BETWEEN = 24, 44
"""Pixels of a row, and between two heat maps."""
_BOXES = 200


def coefficients_figure(material: Material) -> Drawing | None:
    """Draw a heat map a component, of each number that differs by expert; None: the winner has none."""
    found = material.coefficients
    of_experts = [one for one in found if len(one.experts) > 1 or one.parameter == WEIGHT] or found
    if not of_experts:
        return None
    alike = [one for one in of_experts if one.values.shape == of_experts[0].values.shape]
    traces = [trace for at, one in enumerate(alike) for trace in _heat_maps(one, shown=at == 0)]
    first = alike[0]
    rows = len(first.experts) * _ROW

    def axes(label: bool) -> Drawing:
        return axis(
            "layers" if label and first.layers != ("all",) else "", type="category", showgrid=False
        )

    layout = _stacked(
        first.components, axes, lambda: axis(type="category", autorange="reversed", showgrid=False)
    )
    if len(alike) > 1:
        per = len(first.components)
        arguments: list[list[Drawing]] = [
            [{"visible": [at == other for other in range(len(alike)) for _ in range(per)]}, {}]
            for at in range(len(alike))
        ]
        layout["updatemenus"] = choice([text(one.parameter) for one in alike], arguments)
    height = 60 + len(first.components) * (rows + _BETWEEN)
    return drawing(
        traces, height=height, xaxis=layout.pop("xaxis"), yaxis=layout.pop("yaxis"), **layout
    )


def rows_figure(material: Material) -> Drawing | None:
    """Draw how weights spread over the rows of tensors; None where rows of a group are alike."""
    one = next((one for one in material.coefficients if one.rows), None)
    if one is None:
        return None
    traces = []
    components = sorted({component for *_, component in one.rows})
    for plot, component in enumerate(components):
        for expert, name in enumerate(shorts(one.experts)):
            places = [(expert, layer, component) for layer in range(len(one.layers))]
            known = [place for place in places if place in one.rows]
            quantiles = np.array([one.rows[place] for place in known]).reshape(-1, 5).T
            low, first, median, third, high = (numbers(each) for each in quantiles)
            traces.append(
                {
                    "type": "box",
                    "name": name,
                    "legendgroup": name,
                    "offsetgroup": str(expert),
                    "showlegend": plot == 0,
                    "x": [one.layers[layer] for _, layer, _ in known],
                    "lowerfence": low,
                    "q1": first,
                    "median": median,
                    "q3": third,
                    "upperfence": high,
                    "marker": {"color": CYCLE[expert % len(CYCLE)]},
                    "line": {"width": 1.5},
                    **_subplot(plot),
                }
            )
    layout = _stacked(
        [one.components[component] for component in components],
        lambda label: axis("layers" if label else "", type="category"),
        lambda: axis(zeroline=True),
    )
    height = 90 + len(components) * (_BOXES + _BETWEEN)
    return drawing(
        traces,
        height=height,
        xaxis=layout.pop("xaxis"),
        yaxis=layout.pop("yaxis"),
        boxmode="group",
        **layout,
    )


def _heat_maps(one: Coefficient, *, shown: bool) -> list[Drawing]:
    """Return one a component; all have the same colours, and the first the scale."""
    most = float(np.abs(one.values).max()) or 1.0
    signed = bool((one.values < 0).any())
    cells = len(one.experts) * len(one.layers)
    found = []
    for component in range(len(one.components)):
        trace: Drawing = {
            "type": "heatmap",
            "name": text(one.components[component]),
            "x": [f"{layer} " for layer in one.layers],  # not numbers, not dates
            "y": shorts(one.experts),
            "z": [numbers(row) for row in one.values[:, :, component]],
            "zmin": round(-most if signed else 0.0, 4),
            "zmax": round(most, 4),
            "colorscale": AROUND_ZERO if signed else FROM_ZERO,
            "showscale": component == 0,
            "colorbar": {"thickness": 10, "len": 1, "outlinewidth": 0},
            "hovertemplate": "%{y}, layers %{x}: %{z}<extra>%{fullData.name}</extra>",
            "xgap": 1,
            "ygap": 1,
            "visible": shown,
            **_subplot(component),
        }
        if cells <= _MOST_WRITTEN and len(one.layers) <= 8:
            trace["texttemplate"] = "%{z:.2f}"
        found.append(trace)
    return found


def _stacked(
    components: Sequence[str],
    horizontal: Callable[[bool], Drawing],
    vertical: Callable[[], Drawing],
) -> Drawing:
    """Return axes of plots below each other, one a component, and their names above them."""
    found: Drawing = {"annotations": []}
    share = 1 / len(components)
    for at, name in enumerate(components):
        suffix = "" if at == 0 else str(at + 1)
        top = 1 - at * share
        last = at == len(components) - 1
        domain = [round(top - share * 0.82, 4), round(top - share * 0.08, 4)]
        found[f"xaxis{suffix}"] = horizontal(last) | {"anchor": f"y{suffix}"}
        found[f"yaxis{suffix}"] = vertical() | {"anchor": f"x{suffix}", "domain": domain}
        if len(components) > 1:
            found["annotations"].append(
                {
                    "text": f"<b>{short(name, 30)}</b>",
                    "xref": "paper",
                    "yref": "paper",
                    "x": 0,
                    "y": domain[1],
                    "xanchor": "left",
                    "yanchor": "bottom",
                    "showarrow": False,
                }
            )
    return found


def _subplot(at: int) -> Drawing:
    return {} if at == 0 else {"xaxis": f"x{at + 1}", "yaxis": f"y{at + 1}"}
