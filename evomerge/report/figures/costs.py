"""Quality against what it takes to serve a model."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.report.figures.drawing import (
    OF_KIND,
    SIGN_OF_KIND,
    Drawing,
    axis,
    choice,
    drawing,
    number,
    numbers,
    text,
)
from evomerge.report.material import Material
from evomerge.report.rows import KINDS, Row
from evomerge.report.serving import unlike

_TITLES = {
    "base": "base",
    "expert": "experts",
    "baseline": "naive merges",
    "finalist": "finalists",
    "winner": "winner",
}


def costs_figure(material: Material) -> Drawing | None:
    """Draw each model's mean against a cost relative to the base's; None where all models cost the same."""
    split = material.split
    rows = [row for row in material.board.rows if row.objective(split) is not None]
    costs = costs_of(rows, material)
    if not costs:
        return None
    names = list(costs)
    groups = [(kind, [at for at, row in enumerate(rows) if row.kind == kind]) for kind in KINDS]
    groups = [(kind, places) for kind, places in groups if places]
    titles = [f"{name.replace('_', ' ')}, relative to the base" for name in names]
    arguments: list[list[Drawing]] = [
        [
            {"x": [numbers(costs[name][at] for at in places) for _, places in groups]},
            {"xaxis.title.text": title},
        ]
        for name, title in zip(names, titles, strict=True)
    ]
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": _TITLES[kind],
            "x": arguments[0][0]["x"][group],
            "y": [number(rows[at].objective(split)) for at in places],
            "text": [text(rows[at].name) for at in places],
            "hovertemplate": "%{text}: %{y} at %{x}<extra></extra>",
            "marker": {"color": OF_KIND[kind], "symbol": SIGN_OF_KIND[kind], "size": 9},
        }
        for group, (kind, places) in enumerate(groups)
    ]
    menus = (
        {"updatemenus": choice([_short(name) for name in names], arguments)}
        if len(names) > 1
        else {}
    )
    return drawing(
        traces,
        height=400,
        xaxis=axis(titles[0], zeroline=False),
        yaxis=axis(f"mean, {split} items", zeroline=False),
        **menus,
    )


def costs_of(rows: Sequence[Row], material: Material) -> dict[str, list[float | None]]:
    """Return what rows cost relative to the base, where it tells them apart: a value a row."""
    split = material.split
    found = unlike([row.serving for row in rows])
    for name in material.campaign.asked_costs:
        values = [row.splits[split].costs.get(name) for row in rows]
        if name not in found and len({*values} - {None}) > 1:
            found[name] = values
    return found


def _short(name: str) -> str:
    return name.removesuffix("_parameters").replace("_", " ")
