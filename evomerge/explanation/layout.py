"""An explanation as tables, and in the formats of reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import combinations

from rich.console import Console

from evomerge.explanation.explanation import (
    CHANGE,
    Conflict,
    Contribution,
    Explanation,
    ItemChanges,
    ItemExample,
    Sensitivity,
    TestedGain,
)
from evomerge.report.formats import write
from evomerge.report.formats.markdown import cell
from evomerge.report.grid import (
    Cell,
    Column,
    Grid,
    Line,
    Plain,
    Report,
    difference,
    number,
    numbers,
    plain,
    short_names,
)

END = 60
"""Characters of a prompt's end, and of answers, that tables show; JSON has all of them."""


def text(
    found: Explanation, format: str = "table", *, width: int | None = None, color: bool = False
) -> str:
    """Write an explanation; arguments and errors are those of `report.formats.write`."""
    tables = write(report(found), format, width=width, color=color)
    if format == "markdown":
        title = f"# Why {cell(found.winner)} of {cell(found.campaign)} works"
        return f"{title}\n\n{cell(found.summary)}\n\n{tables}"
    if format == "table":
        console = Console(width=width, force_terminal=color, highlight=False, markup=False)
        with console.capture() as captured:
            console.print(plain(found.summary))
        return f"{captured.get()}\n{tables}"
    return tables


def report(found: Explanation) -> Report:
    """Return what formats write of an explanation."""
    shown = tuple(grid for part in grids(found).values() for grid in part)
    return Report(shown, list(_records(found)), found.to_json(), found)


def grids(found: Explanation) -> dict[str, list[Grid]]:
    """Return the tables by what they are about: experts, groups, sensitivity, items, conflict, control."""
    tasks = dict(zip(found.tasks, short_names(found.tasks), strict=True))
    tested = "winner minus ablation on the same items; *: p < 0.05 after Holm's correction"
    shown: dict[str, list[Grid]] = {}
    if found.experts:
        title, notes = "What each expert adds (select items)", [found.how, tested]
        shown["experts"] = [_contributions(title, found.experts, tasks, notes)]
    if found.groups:
        title = "What the experts add in each group (select items)"
        notes = ["A group is left out by the base's weights there.", tested]
        shown["groups"] = [_contributions(title, found.groups, tasks, notes)]
    if found.sensitivity is not None:
        shown["sensitivity"] = [_sensitivity(found.sensitivity, found.experts, tasks)]
    shown["items"] = [_changes(changes, tasks) for changes in found.changes]
    shown["conflict"] = [] if found.conflict is None else [_conflict(found.conflict)]
    shown["control"] = [_control(found, tasks)]
    return shown


def ending(text: str) -> str:
    """Return the end of a text on one line."""
    text = plain(text)
    return f"…{text[-END:]}" if len(text) > END else text


def _contributions(
    title: str, parts: Sequence[Contribution], tasks: dict[str, str], notes: Sequence[str]
) -> Grid:
    several = len(tasks) > 1
    headers = ("without", *(["mean"] if several else []), *tasks.values())
    lines = []
    for one in parts:
        gains = [*([one.mean] if several else []), *(one.tasks[task] for task in tasks)]
        lines.append(Line(one.name, "expert", tuple(map(_gain, gains))))
    said = [*notes]
    idle = [one.name for one in parts if one.unchanged]
    if idle:
        said.append(f"The same model without: {', '.join(idle)}.")
    said += [f"Without {one.name}: {one.failure}" for one in parts if one.failure]
    return Grid(title, headers, tuple(lines), tuple(note for note in said if note))


def _gain(gain: TestedGain | None) -> Cell:
    if gain is None:
        return Cell()
    test = gain.test
    ends = f"[{difference(test.low)}, {difference(test.high)}]"
    half = f"{(test.high - test.low) / 2:.3f}".removeprefix("0")
    mark = "*" if gain.is_significant else ""
    return Cell(f"{difference(test.difference)}{mark}", ends, f"±{half}")


def _sensitivity(found: Sensitivity, parts: Sequence[Contribution], tasks: dict[str, str]) -> Grid:
    known = [task for task in tasks if task in found.gradients]
    measured = {one.expert: one for one in parts}
    lines = []
    for expert in found.experts:
        predicted = [Cell(difference(found.predicted(expert, task))) for task in known]
        left = measured.get(expert)
        lines.append(
            Line(expert, "expert", (*predicted, _gain(None if left is None else left.mean)))
        )
    return Grid(
        f"Predicted change of the loss for {CHANGE:+g} of an expert's weight everywhere (search items)",
        ("expert", *(tasks[task] for task in known), "mean without it"),
        tuple(lines),
        (
            "nats an item of the gold answers, to first order; below 0: more of the expert helps; beside it "
            "what leaving it out costs",
        ),
    )


def _changes(found: ItemChanges, tasks: dict[str, str]) -> Grid:
    shown = [
        *((one, "gained") for one in found.examples_gained),
        *((one, "lost") for one in found.examples_lost),
    ]
    lines = tuple(
        Line(f"{tasks.get(one.task, one.task)}, {how}", "expert", tuple(map(Cell, _words(one))))
        for one, how in shown
    )
    counts = ", ".join(
        f"{tasks.get(task, task)} +{found.gained[task]} -{found.lost[task]} of {count}"
        for task, count in found.items.items()
    )
    return Grid(
        f"Items against the {found.part} ({found.against}), {found.split}",
        ("item", "ends in", "gold", "the winner", found.against, "others' mean"),
        lines,
        (f"gained and lost: {counts}",),
        words=True,
    )


def _words(one: ItemExample) -> tuple[str, ...]:
    texts = map(ending, (one.prompt, one.gold, one.answer, one.other_answer))
    return (*texts, f"{one.others:.2f}")


def _conflict(found: Conflict) -> Grid:
    pairs = list(combinations(range(len(found.experts)), 2))
    columns: dict[str, list[float | None]] = {}
    if found.task_vectors:
        *parts, whole = found.task_vectors
        columns["cosine"] = [whole.cosines[i][j] for i, j in pairs]
        columns["lowest of a layer"] = [
            min((one for part in parts if (one := part.cosines[i][j]) is not None), default=None)
            for i, j in pairs
        ]
        columns["opposed signs"] = [whole.opposed[i][j] for i, j in pairs]
    if found.distances:
        columns["states apart"] = [max(layer[i][j] for layer in found.distances) for i, j in pairs]
        columns["behind the last layer"] = [found.distances[-1][i][j] for i, j in pairs]
    rows = zip(*columns.values(), strict=True)
    lines = tuple(
        Line(
            f"{found.experts[i]}, {found.experts[j]}",
            "expert",
            tuple(Cell("" if value is None else number(value)) for value in row),
        )
        for (i, j), row in zip(pairs, rows, strict=True)
    )
    notes = [
        "cosine of two task vectors, over the whole model and in the layer where it is lowest; signs: share "
        "of the weights that both change, in opposite directions (0.5: unrelated)",
        f"states: how far the mean hidden states of {found.prompts} prompts are apart, as a share of their "
        "length, in the layer where it is most; of these measures the one that goes with merges that fail "
        "(arXiv 2603.09463)",
    ]
    headers = ("experts", *columns)
    return Grid("How the experts lie to each other", headers, lines, tuple(notes))


def _control(found: Explanation, tasks: dict[str, str]) -> Grid:
    rows = [(found.winner, "winner", found.mean, found.values)]
    if found.random is not None:
        rows.append(("random task vectors", "expert", found.random.mean, found.random.tasks))
    columns = [Column("mean", [mean for _, _, mean, _ in rows])] if len(tasks) > 1 else []
    columns += [Column(name, [own.get(task) for *_, own in rows]) for task, name in tasks.items()]
    notes = list(found.notes)
    if found.random is not None:
        how = f"the winner's numbers on noise of the same norms, tensor by tensor, seed {found.random.seed}"
        notes.insert(0, f"random task vectors: {found.random.failure or how}")
    names = [(name, kind) for name, kind, *_ in rows]
    return numbers("The winner (select items)", names, columns, notes)


def _records(found: Explanation) -> Iterator[dict[str, Plain]]:
    """Give one flat record for each part and task."""
    for kind, parts in (("expert", found.experts), ("group", found.groups)):
        for one in parts:
            gains = {"mean": one.mean, **one.tasks}
            for task, gain in gains.items():
                record: dict[str, Plain] = {
                    "kind": kind,
                    "expert": one.expert,
                    "layers": one.layers,
                    "tensors": one.tensors,
                    "task": task,
                }
                names = ("difference", "low", "high", "p", "n", "method")
                test = {} if gain is None else asdict(gain.test)
                record |= {name: test.get(name) for name in names}
                record["p_corrected"] = None if gain is None else gain.p_corrected
                yield record | {"unchanged": one.unchanged, "failure": one.failure or None}
