"""Reports as tables for the terminal, in the width that it has."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from shutil import get_terminal_size

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from evomerge.report.grid import Grid, Line, Report, plain

GAP = 2  # one of padding, one that the box puts between columns
LEAST_NAME = 18
WIDEST_CELL = 24  # longer ones wrap
LEAST_HEADER = 10
LEAST_WIDTH = 40


def write(report: Report, *, width: int | None = None, color: bool = False) -> str:
    """Write its tables in at most `width` columns (at least 40; None: the terminal's, else 100).

    Long names and headers wrap, and columns that find no room stand in a further table below; nothing is
    cut. The best of each column is bold.
    """
    stream = StringIO()
    console = Console(
        file=stream,
        width=max(width or get_terminal_size((100, 24)).columns, LEAST_WIDTH),
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        legacy_windows=False,
    )
    for index, grid in enumerate(report.grids):
        if index:
            console.print()
        _print(console, grid)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _print(console: Console, grid: Grid) -> None:
    if grid.title:
        console.print(_text(grid.title, "bold"))
    rows = [[_text(header) for header in grid.headers], *map(_row, grid.lines)]
    names, *columns = map(list, zip(*rows, strict=True))  # each: its header, then its cells
    room = console.width - min(LEAST_NAME, _longest(names))
    for at, block in enumerate(_blocks(columns, room) if grid.lines else ()):
        if at:
            console.print()
        console.print(_table(grid, names, block, _widths(block, room)))
    if grid.has_intervals:
        console.print(_text("± half the 95 % interval's width", "dim"))
    if grid.notes:
        console.print()
    for note in grid.notes:
        console.print(_text(note))


def _row(line: Line) -> list[Text]:
    cells = [(f"{plain(cell.text) or '–'} {cell.half}".rstrip(), cell.best) for cell in line.cells]
    shown = [(line.name, line.kind == "winner"), *cells]
    return [_text(text, "bold" if bold else "") for text, bold in shown]


def _blocks(columns: Sequence[list[Text]], room: int) -> list[list[list[Text]]]:
    """Deal the columns out to tables in which the cells of all find room beside the names."""
    blocks: list[list[list[Text]]] = [[]]
    for column in columns:
        if blocks[-1] and sum(_least(one) + GAP for one in (*blocks[-1], column)) > room:
            blocks.append([])
        blocks[-1].append(column)
    return blocks


def _widths(block: Sequence[list[Text]], room: int) -> list[int]:
    """Return widths that hold the cells, and all text up to the largest cap that leaves names their room."""
    for cap in range(room, -1, -1):
        widths = [max(_least(column), min(_longest(column), cap)) for column in block]
        if sum(widths) + GAP * len(widths) <= room:
            break
    return widths


def _table(
    grid: Grid, names: Sequence[Text], block: Sequence[list[Text]], widths: Sequence[int]
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0), show_edge=False)
    table.add_column(names[0], overflow="fold")
    for (header, *_), width in zip(block, widths, strict=True):
        justify: JustifyMethod = "left" if grid.words else "right"
        table.add_column(header, width=width, justify=justify, overflow="fold")
    kinds = [line.kind for line in grid.lines]
    for at, row in enumerate(zip(names[1:], *(column[1:] for column in block), strict=True)):
        table.add_row(*row, end_section=kinds[at] != kinds[min(at + 1, len(kinds) - 1)])
    return table


def _longest(texts: Sequence[Text]) -> int:
    return max((text.cell_len for text in texts), default=0)


def _least(column: Sequence[Text]) -> int:
    """Return the width that its cells need, and enough to read its header over several lines."""
    return max(min(WIDEST_CELL, _longest(column[1:])), min(LEAST_HEADER, column[0].cell_len), 1)


def _text(text: str, style: str = "") -> Text:
    """Return text as it is, with nothing in it that styles or steers the terminal."""
    return Text(plain(text), style=style)
