"""The Pareto front: two of a campaign's values against each other, trial by trial."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from evomerge.objective import Direction
from evomerge.report.figures.drawing import (
    OF_KIND,
    RED,
    SIGN_OF_KIND,
    SKY,
    Drawing,
    axis,
    choice,
    drawing,
    numbers,
    short,
    text,
)
from evomerge.report.front import on_front, value_names
from evomerge.report.grid import short_names
from evomerge.report.material import Material

MOST = 1_500
"""Trials behind the front that are drawn, over all pairs of values; of more every n-th."""
_Values = Sequence[float]


def front_figure(material: Material) -> Drawing | None:
    """Draw the trials, their front, and models of the leaderboard; None where one value is searched."""
    if material.campaign.mode == "mean":
        return None
    aims = material.aims
    trials = [
        trial for trial in material.trials if trial.state == "complete" and trial.values is not None
    ]
    if not trials:
        return None
    values = [trial.values or () for trial in trials]
    missing = [
        aims.violations(trial.outcome, aims.weighed(trial)) if trial.outcome else ()
        for trial in trials
    ]
    front = on_front(aims, values, missing)
    behind = [row for row in range(len(trials)) if row not in front]
    names = value_names(material.campaign)
    most = max(1, MOST // len(list(combinations(names, 2))))
    behind = behind[:: -(-len(behind) // most) or 1]
    called = [f"trial {trial.number}" for trial in trials]
    groups = [
        ("trials", behind, {"color": SKY, "size": 5, "opacity": 0.8}),
        ("front", sorted(front), {"color": RED, "size": 8}),
    ]
    series: list[tuple[Drawing, list[_Values]]] = [
        (_points(name, [called[row] for row in rows], marker), [values[row] for row in rows])
        for name, rows, marker in groups
        if rows
    ]
    series += _models(material)
    tasks = len(names) - len(material.campaign.costs)
    names = short_names(names[:tasks]) + [name.replace("_", " ") for name in names[tasks:]]
    return _pairs(names, aims.directions, series)


def _models(material: Material) -> list[tuple[Drawing, list[_Values]]]:
    """Return the parents on the search items, and the merges of the leaderboard on the select items.

    The latter only where the reported metrics are the searched ones: axes have one metric each.
    """
    found: list[tuple[Drawing, list[_Values]]] = []
    for kind, title, split in (
        ("base", "base", "search"),
        ("expert", "experts", "search"),
        ("baseline", "naive merges on select", "select"),
        ("finalist", "finalists on select", "select"),
        ("winner", "winner on select", "select"),
    ):
        aims = next((one for name, one in material.board.aims.items() if name == split), None)
        some = [one for one in material.evaluations if one.kind == kind and one.split == split]
        some = [one for one in some if one.outcome.failure is None]
        unlike = any(goal.metric != goal.report for goal in material.campaign.objectives)
        if aims is None or not some or (split == "select" and unlike):
            continue
        marker = {"color": OF_KIND[kind], "symbol": SIGN_OF_KIND[kind], "size": 9}
        trace = _points(title, [one.name for one in some], marker)
        found.append((trace, [aims.values(one.outcome, one.candidate) for one in some]))
    return found


def _points(name: str, names: Sequence[str], marker: Drawing) -> Drawing:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "text": [text(one) for one in names],
        "hovertemplate": "%{text}: %{x}, %{y}<extra></extra>",
        "marker": marker,
    }


def _pairs(
    names: Sequence[str],
    directions: Sequence[Direction],
    series: Sequence[tuple[Drawing, Sequence[_Values]]],
) -> Drawing:
    """Draw two values; of more, buttons choose which two."""
    labels = [
        f"{short(name)} {'↑' if direction == 'maximize' else '↓'}"
        for name, direction in zip(names, directions, strict=True)
    ]
    pairs = list(combinations(range(len(names)), 2))
    arguments: list[list[Drawing]] = [
        [
            {
                key: [numbers(one[place] for one in values) for _, values in series]
                for key, place in (("x", first), ("y", second))
            },
            {"xaxis.title.text": labels[first], "yaxis.title.text": labels[second]},
        ]
        for first, second in pairs
    ]
    drawn = [
        trace | {key: arguments[0][0][key][at] for key in ("x", "y")}
        for at, (trace, _) in enumerate(series)
    ]
    for trace in drawn:
        if trace["name"] == "front" and len(names) == 2:
            order = sorted(range(len(trace["x"])), key=lambda row: trace["x"][row])
            for key in ("x", "y", "text"):
                trace[key] = [trace[key][row] for row in order]
            trace |= {"mode": "lines+markers", "line": {"color": RED, "width": 1, "dash": "dot"}}
    menus = {}
    if len(pairs) > 1:
        shown = [f"{labels[first]}, {labels[second]}" for first, second in pairs]
        menus = {"updatemenus": choice(shown, arguments)}
    first, second = axis(labels[0], zeroline=False), axis(labels[1], zeroline=False)
    return drawing(drawn, height=420, xaxis=first, yaxis=second, **menus)
