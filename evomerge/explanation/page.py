"""An explanation as a page: its tables, and heat maps of what they sum up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from evomerge.explanation.explanation import (
    Conflict,
    Contribution,
    Explanation,
    ItemChanges,
    ItemExample,
    Sensitivity,
)
from evomerge.explanation.layout import ending, grids
from evomerge.report.figures.drawing import (
    AROUND_ZERO,
    FROM_ZERO,
    Drawing,
    axis,
    drawing,
    numbers,
    shorts,
    text,
)
from evomerge.report.grid import Cell, Grid, Line, short_names
from evomerge.report.page import Code, Fold, Part, Plot, Section, write_page

ROW = 26
"""Pixels of a row of a heat map."""
Values = Sequence[Sequence[float | None]]


def explanation_page(found: Explanation) -> str:
    """Return an explanation as HTML, one file that needs no network."""
    shown = grids(found)
    sections = [
        Section("summary", "In short", [found.summary]),
        Section("experts", "What each expert adds", [*_experts(found), *shown.get("experts", [])]),
        Section("groups", "Where in the model", [*_groups(found), *shown.get("groups", [])]),
        Section(
            "sensitivity",
            "What more of an expert would do",
            [*_gradients(found.sensitivity), *shown.get("sensitivity", [])],
        ),
        Section("items", "Items gained and lost", list(_items(found.changes))),
        Section(
            "conflict", "How experts conflict", [*_conflict(found.conflict), *shown["conflict"]]
        ),
        Section("control", "The winner, and the control", shown["control"]),
    ]
    return write_page(
        f"Why {found.winner} works", sections, subtitle=f"{found.campaign}: {found.label}"
    )


def _experts(found: Explanation) -> Iterator[Plot]:
    if not found.experts:
        return
    values = [[_gain(one, task) for task in found.tasks] for one in found.experts]
    yield Plot(
        "experts",
        "What is lost without each expert",
        "Winner minus the winner without the expert, task by task, on the select items; above 0: it helps.",
        _heat_map([one.name for one in found.experts], short_names(found.tasks), values),
    )


def _groups(found: Explanation) -> Iterator[Plot]:
    if not found.groups:
        return
    layers = list(dict.fromkeys(one.layers for one in found.groups))
    tensors = list(dict.fromkeys(one.tensors for one in found.groups))
    means = {
        (one.tensors, one.layers): None if one.mean is None else one.mean.test.difference
        for one in found.groups
    }
    values = [[means.get((part, layer)) for layer in layers] for part in tensors]
    yield Plot(
        "groups",
        "What is lost on the mean with the base's weights in a group",
        "Winner minus the winner with the base's weights in these layers and tensors, on the select items.",
        _heat_map(tensors, layers, values, across="layers"),
    )


def _gradients(found: Sensitivity | None) -> Iterator[Plot]:
    if found is None:
        return
    places = [
        (group, part) for part in range(len(found.tensors)) for group in range(len(found.layers))
    ]
    values = [
        [
            sum(table[group][part][expert] for table in found.gradients.values())
            / len(found.gradients)
            for group, part in places
        ]
        for expert in range(len(found.experts))
    ]
    columns = [f"{found.layers[group]} {found.tensors[part]}" for group, part in places]
    yield Plot(
        "gradients",
        "Gradient of the mean loss by each weight",
        "Of the gold answers of the search items, at the winner; below 0: more weight lowers it.",
        _heat_map(found.experts, columns, values, across="layers and tensors"),
    )


def _conflict(found: Conflict | None) -> Iterator[Plot]:
    if found is None:
        return
    pairs = list(combinations(range(len(found.experts)), 2))
    names = [f"{found.experts[i]}, {found.experts[j]}" for i, j in pairs]
    if found.distances:
        layers = ["embeddings", *map(str, range(len(found.distances) - 1))]
        yield Plot(
            "states",
            "How far hidden states are apart",
            "Of two experts on the same prompts, behind each layer, as a share of the states' length.",
            _heat_map(
                names,
                layers,
                [[states[i][j] for states in found.distances] for i, j in pairs],
                across="behind layer",
            ),
        )
    if found.task_vectors:
        parts = [one.part.removeprefix("layer ") for one in found.task_vectors]
        values = [[one.cosines[i][j] for one in found.task_vectors] for i, j in pairs]
        yield Plot(
            "cosines",
            "Cosine of task vectors",
            "Of two experts, in each layer and in the whole model; 0: they are orthogonal.",
            _heat_map(names, parts, values, across="layer"),
        )


def _items(changes: Sequence[ItemChanges]) -> Iterator[Part]:
    """Give how many items of each task changed, and the most telling ones to be opened."""
    for one in changes:
        names = dict(zip(one.items, short_names(list(one.items)), strict=True))
        counts = ((one.gained[task], one.lost[task], of) for task, of in one.items.items())
        lines = tuple(
            Line(name, "expert", tuple(Cell(str(count)) for count in row))
            for name, row in zip(names.values(), counts, strict=True)
        )
        title = f"Items against the {one.part} ({one.against}), {one.split}"
        yield Grid(title, ("task", "gained", "lost", "of"), lines)
        for how, examples in (("Gained", one.examples_gained), ("Lost", one.examples_lost)):
            for example in examples:
                name = names.get(example.task, example.task)
                yield Fold(f"{how}: {name}, {ending(example.prompt)}", _whole(example, one))


def _whole(one: ItemExample, changes: ItemChanges) -> list[Part]:
    texts = {
        "Prompt": one.prompt,
        "Right": one.gold,
        "The winner": one.answer,
        changes.against: one.other_answer,
    }
    return [Code(title, text or "(nothing)") for title, text in texts.items()]


def _gain(one: Contribution, task: str) -> float | None:
    gain = one.tasks.get(task)
    return None if gain is None else gain.test.difference


def _heat_map(
    rows: Sequence[str], columns: Sequence[str], values: Values, *, across: str = ""
) -> Drawing:
    """Return a heat map whose colours are fixed at 0."""
    known = [abs(value) for row in values for value in row if value is not None]
    most = max(known, default=0.0) or 1.0
    signed = any(value is not None and value < 0 for row in values for value in row)
    trace: Drawing = {
        "type": "heatmap",
        "x": [f"{text(column)} " for column in columns],  # not numbers, not dates
        "y": shorts(rows, 30),
        "z": [numbers(row) for row in values],
        "zmin": -most if signed else 0.0,
        "zmax": most,
        "colorscale": AROUND_ZERO if signed else FROM_ZERO,
        "colorbar": {"thickness": 10, "len": 1, "outlinewidth": 0},
        "hovertemplate": "%{y}, %{x}: %{z}<extra></extra>",
        "xgap": 1,
        "ygap": 1,
    }
    if len(columns) <= 8:
        trace["texttemplate"] = "%{z:.2f}"
    return drawing(
        [trace],
        height=110 + ROW * len(rows),
        xaxis=axis(across, type="category", showgrid=False),
        yaxis=axis(type="category", autorange="reversed", showgrid=False),
    )
