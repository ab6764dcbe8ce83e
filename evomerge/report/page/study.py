"""The page of one study: what it found, how sure that is, how it came to be, and how to do it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import SPLITS, Split, row_name
from evomerge.report.failures import failure_notes
from evomerge.report.figures import FIGURES
from evomerge.report.grid import Cell, Grid, Line, Plain, number, words
from evomerge.report.items import items_of
from evomerge.report.layout import layout
from evomerge.report.material import Material
from evomerge.report.notes import generalisation_gap_note
from evomerge.report.page.fitting import fitted
from evomerge.report.page.parts import Callout, Code, Fold, ItemTable, Part, Plot, Section, Tone
from evomerge.report.page.writing import LARGEST, write_page
from evomerge.report.rows import Row
from evomerge.report.verdict import Finding, verdict
from evomerge.store import Store

_TONES: Mapping[Finding, Tone] = {"gain": "good", "loss": "bad"}
_ROOM_FOR_MORE = 20_000
"""Bytes that items leave free in a page."""


def report_page(store: Store, *, refresh: bool = False) -> str:
    """Write the page of a study, finished, running or interrupted.

    Args:
        store: Open, for reading at least.
        refresh: The page loads itself again now and then.

    Returns:
        HTML of at most `LARGEST` bytes; where items are many, those on which models differ are kept.
    """
    material = Material.of(store)
    plots = dict(_plots(material))
    sections = [
        _found(material),
        _leaderboard(material, plots),
        Section("routing", "Who answers", _routing(material)),
        Section("search", "Search", [*_of(plots, "history", "front", "importances")]),
        Section("winner", "Winner", _winner(material, plots)),
        Section("gap", "Generalisation gap", _gap(material, plots)),
        Section("costs", "Costs", [*_of(plots, "costs", "timeline"), *_costs(material)]),
        Section("failures", "Failures", _failures(material)),
        Section("environment", "Environment", _environment(material)),
        Section("again", "Do it again", _again(material)),
    ]
    sections.insert(6, Section("more", "More figures", list(plots.values())))
    name, subtitle = material.board.campaign.name, _subtitle(material)
    bare = write_page(name, sections, subtitle=subtitle, refresh=refresh)
    room = LARGEST - len(bare.encode()) - _ROOM_FOR_MORE
    sections.insert(6, Section("items", "Items", _items(material, room)))
    return write_page(name, sections, subtitle=subtitle, refresh=refresh)


def _subtitle(material: Material) -> str:
    campaign = material.board.campaign
    of = "" if campaign.trials is None else f" of {campaign.trials}"
    state = "finished" if material.finished else "not finished"
    counts = ((len(campaign.experts), "expert"), (len(campaign.goals), "task"))
    sizes = ", ".join(f"{n} {what}{'s' if n != 1 else ''}" for n, what in counts)
    return f"{state}, {campaign.done}{of} trials done; {sizes}"


def _plots(material: Material) -> Iterator[tuple[str, Plot]]:
    for name, figure in FIGURES.items():
        drawn = figure.build(material)
        if drawn is not None:
            yield name, Plot(name, figure.title, figure.about, drawn)


def _of(plots: dict[str, Plot], *names: str) -> list[Plot]:
    """Take some figures; those that nobody takes stand under `More figures`."""
    return [plots.pop(name) for name in names if name in plots]


def _found(material: Material) -> Section:
    said = verdict(material.board)
    chosen = material.board.campaign.chosen
    parts: list[Part] = [Callout(f"{said.sentence}.", _TONES.get(said.finding, "plain"))]
    if chosen and material.board.winners:
        parts.append(f"Chosen: {material.board.winners[0].name}, {chosen}.")
    return Section("verdict", "Verdict", parts)


def _leaderboard(material: Material, plots: dict[str, Plot]) -> Section:
    board = material.board
    elsewhere = {verdict(board).sentence, *failure_notes(board.failures)}
    grids = {
        split: layout(board, split)
        for split in reversed(SPLITS)
        if any(split in row.splits for row in board.rows)
    }
    shown: list[Grid] = [
        replace(grid, notes=tuple(note for note in grid.notes if note not in elsewhere))
        for grid in grids.values()
    ]
    parts: list[Part] = [*shown[:1], *_of(plots, "leaderboard")]
    folds = [
        Fold(f"On the {split} items", [grid])
        for split, grid in zip(list(grids)[1:], shown[1:], strict=True)
    ]
    return Section("leaderboard", "Leaderboard", [*parts, *folds])


def _routing(material: Material) -> list[Part]:
    routing = material.board.routing
    split = next((split for split in reversed(SPLITS) if split in routing), None)
    return [] if split is None else [*routing[split].grids()]


def _winner(material: Material, plots: dict[str, Plot]) -> list[Part]:
    leading = _leading(material)
    if leading is None:
        return []
    called = "The winner" if leading.kind == "winner" else "What leads so far"
    remark = leading.recipe.remark()
    return [
        f"{called}: {leading.name}, {leading.recipe.label()}.",
        *_of(plots, "coefficients", "rows", "members"),
        Code("Recipe", leading.recipe.file()),
        *([remark] if remark else []),
    ]


def _leading(material: Material) -> Row | None:
    board = material.board
    rows = board.winners or tuple(row for row in board.rows if row.kind == "finalist")
    return rows[0] if rows else None


def _gap(material: Material, plots: dict[str, Plot]) -> list[Part]:
    notes = [generalisation_gap_note(one) for one in material.board.tests.generalisation_gap]
    return [*(f"{note[0].upper()}{note[1:]}." for note in notes), *_of(plots, "gap")]


def _costs(material: Material) -> list[Part]:
    by_part: dict[str, list[Cost]] = {"trials": [], "gradient steps": []}
    by_part["trials"] = [one.outcome.cost for one in material.trials if one.outcome is not None]
    by_part["gradient steps"] = [one.cost for one in material.steps]
    for one in material.evaluations:
        part = "finalists and winner" if one.number is not None else "parents and naive merges"
        by_part.setdefault(part, []).append(one.outcome.cost)
    counts = {part: len(costs) for part, costs in by_part.items() if costs}
    totals = {part: sum(by_part[part], Cost()) for part in counts}
    counts["all"], totals["all"] = sum(counts.values()), sum(totals.values(), Cost())
    headers = ("", "how many", "items", "generated tokens", "merging, s", "scoring, s")
    lines = [
        Line(
            part,
            "total" if part == "all" else "",
            _cells(
                f"{counts[part]:,}",
                f"{cost.items:,}",
                f"{cost.generated_tokens:,}",
                f"{cost.merge_seconds:,.1f}",
                f"{cost.score_seconds:,.1f}",
            ),
        )
        for part, cost in totals.items()
    ]
    return [
        Grid("What the study took, seconds of all workers", headers, tuple(lines)),
        *_serving(material),
    ]


def _serving(material: Material) -> list[Part]:
    rows = [row for row in material.board.rows if row.kind in ("base", "winner")]
    lines = [
        Line(
            row.name,
            row.kind,
            _cells(
                f"{one.parameters:,}",
                f"{one.active_parameters:,}",
                f"{one.bytes / 1e9:.3g}",
                "" if one.milliseconds is None else number(one.milliseconds),
                "" if one.tokens_per_second is None else number(one.tokens_per_second),
            ),
        )
        for row in rows
        if (one := row.serving) is not None
    ]
    headers = ("", "weights", "active weights", "GB", "ms an item", "tokens a second")
    return [Grid("What serving takes", headers, tuple(lines))] if lines else []


def _cells(*texts: str) -> tuple[Cell, ...]:
    return tuple(map(Cell, texts))


def _failures(material: Material) -> list[Part]:
    groups = material.board.failures
    if not groups:
        return []
    table = words(
        [
            {
                "kind": group.kind,
                "reason": group.reason,
                "times": group.count,
                "on": ", ".join(group.splits),
                "what": _few(group.rows),
            }
            for group in groups
        ]
    )
    traces = [
        Fold(f"Traceback: {group.kind}, {group.rows[0]}", [Code(group.reason, group.traceback)])
        for group in groups
        if group.traceback
    ]
    return [replace(table, title="Why candidates have no scores"), *traces]


def _few(names: Sequence[str], most: int = 5) -> str:
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _items(material: Material, room: int) -> list[Part]:
    items = items_of(material)
    if items is None:
        return []
    data, note = fitted(items, room)
    what = f"What models wrote on the {items.split} items, beside the right answer."
    return [what, *([note] if note else []), ItemTable(data)]


def _environment(material: Material) -> list[Part]:
    campaign, facts = material.board.campaign, material.facts
    revisions = facts.get("revisions") or {}
    called = {"base": campaign.base} | {f"expert:{name}": m for name, m in campaign.experts.items()}
    hashes = facts.get("models") or {}
    models = [
        {
            "model": row_name(key),
            "from": called.get(key, ""),
            "revision": str(revisions.get(key) or ""),
            "hash": str(hashes.get(key) or ""),
        }
        for key in called
    ]
    tasks: list[dict[str, Plain]] = [
        {
            "task": goal.task,
            "searched": goal.metric,
            "reported": goal.report,
            "weight": goal.weight,
            "hash of its prompts": campaign.prompts.get(goal.task, ""),
        }
        for goal in campaign.goals
    ]
    versions = [{"package": name, "version": one} for name, one in campaign.versions.items()]
    tables = [("Models", words(models)), ("Tasks", words(tasks)), ("Versions", words(versions))]
    grids = [replace(grid, title=title) for title, grid in tables if grid.lines]
    return [*grids, _counts(campaign.items)]


def _counts(items: Mapping[Split, int]) -> str:
    parts = ", ".join(f"{items[split]} {split}" for split in SPLITS)
    return f"Items a task: {parts}."


def _again(material: Material) -> list[Part]:
    folder = shlex.quote(str(material.folder))
    file = shlex.quote(str(material.folder / "campaign.yaml"))
    commands = [
        f"evomerge search {file} --out NEW_DIR        # from the start, the same seed",
        f"evomerge resume {folder} --trials 50        # 50 more trials",
        f"evomerge report {folder} --html report.html # this page",
        f"evomerge merge {folder} --trial best OUT_DIR # the winner's model",
    ]
    versions = material.board.campaign.versions.items()
    public = {name: version.split("+")[0] for name, version in versions}  # not 2.6.0+cpu
    packages = " ".join(shlex.quote(f"{name}=={version}") for name, version in public.items())
    install = [f"pip install {packages}"] if packages else []
    return [
        Code("Commands", "\n".join([*install, *commands])),
        Fold(
            "The campaign file, defaults filled in",
            [Code("campaign.yaml", material.campaign.to_yaml())],
        ),
    ]
