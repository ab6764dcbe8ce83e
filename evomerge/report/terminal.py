"""A grid as a table for the terminal that fits its width."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from shutil import get_terminal_size

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evomerge.report.escape import plain
from evomerge.report.layout import Grid, Line, number
from evomerge.report.rows import Value

GAP = 2  # one of padding, one that the box puts between columns
LEAST_NAME = 18
LEAST_WIDTH = 40


def terminal_table(grid: Grid, *, width: int | None = None, color: bool = False) -> str:
    """Write a grid in at most `width` columns (at least 40; None: the terminal's, else 100).

    Long names wrap, long headers are cut, and columns that still find no room go on in a further block
    below; numbers are never cut. The best of each column is bold.
    """
    stream = StringIO()
    width = width or get_terminal_size((100, 24)).columns
    console = Console(
        file=stream,
        width=max(width, LEAST_WIDTH),
        force_terminal=color,
        color_system="standard" if color else None,
        highlight=False,
        legacy_windows=False,
    )
    console.print(Text(plain(grid.title), style="bold"))
    for block in _blocks(grid, console.width):
        console.print(_table(grid, block, console.width))
    if any(column.interval for column in grid.columns):
        console.print(Text("± half the 95 % interval's width", style="dim"))
    console.print()
    for note in grid.notes:
        console.print(Text(plain(note)))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _blocks(grid: Grid, width: int) -> list[list[int]]:
    """Deal the columns out to blocks in which their numbers, and a name, have room."""
    blocks: list[list[int]] = [[]]
    room = width - LEAST_NAME
    for index in range(len(grid.columns)):
        need = _number_width(grid, index) + GAP
        if need > room and blocks[-1]:
            blocks.append([])
            room = width - LEAST_NAME
        blocks[-1].append(index)
        room -= need
    return blocks


def _table(grid: Grid, block: Sequence[int], width: int) -> Table:
    widths = _widths(grid, block, width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0), show_edge=False)
    names = max((len(plain(line.name)) for line in grid.lines), default=1)
    table.add_column("", width=min(names, width - sum(w + GAP for w in widths)), overflow="fold")
    for index, column_width in zip(block, widths, strict=True):
        header = Text(_cut(plain(grid.columns[index].header), column_width))
        table.add_column(header, width=column_width, justify="right", no_wrap=True)
    previous: Line | None = None
    for line in grid.lines:
        if previous is not None and previous.kind != line.kind:
            table.add_section()
        name = Text(plain(line.name), style="bold" if line.kind == "winner" else "")
        table.add_row(name, *(_cell(grid, line, index) for index in block))
        previous = line
    return table


def _widths(grid: Grid, block: Sequence[int], width: int) -> list[int]:
    """Give every header its room, then take from the widest until the names have theirs."""
    least = [_number_width(grid, index) for index in block]
    widths = [
        max(number_width, len(plain(grid.columns[index].header)))
        for number_width, index in zip(least, block, strict=True)
    ]
    names = min(LEAST_NAME, max((len(plain(line.name)) for line in grid.lines), default=1))
    while sum(w + GAP for w in widths) > width - names:
        slack = [w if w > floor else 0 for w, floor in zip(widths, least, strict=True)]
        if not any(slack):
            break
        widths[slack.index(max(slack))] -= 1
    return widths


def _number_width(grid: Grid, index: int) -> int:
    column = grid.columns[index]
    shown = (_shown(line.values[index], column.interval) for line in grid.lines)
    return max([len(text) for text in shown] + [5])


def _cell(grid: Grid, line: Line, index: int) -> Text:
    value, column = line.values[index], grid.columns[index]
    best = value is not None and value.value == grid.best(index)
    return Text(_shown(value, column.interval), style="bold" if best else "")


def _shown(value: Value | None, interval: bool) -> str:
    if value is None:
        return "–"
    text = number(value.value)
    if interval and value.low is not None and value.high is not None:
        half = number((value.high - value.low) / 2)
        text += f" ±{half.removeprefix('0')}"
    return text


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
