"""Reports as Markdown tables, and text made safe to stand in Markdown."""

from __future__ import annotations

import re

from evomerge.report.grid import Cell, Grid, Report, plain

_MARKUP = re.compile(r"([\\`*\[\]|])")


def write(report: Report, *, width: int | None = None, color: bool = False) -> str:
    """Write its tables one after the other."""
    return "\n".join(map(table, report.grids))


def table(grid: Grid) -> str:
    """Write a table under its title, the best of each column and the winner in bold."""
    lines = [f"**{cell(grid.title)}**", ""] if grid.title else []
    lines.append("| " + " | ".join(map(cell, grid.headers)) + " |")
    lines.append("| --- |" + (" --- |" if grid.words else " ---: |") * (len(grid.headers) - 1))
    for line in grid.lines:
        name = f"**{cell(line.name)}**" if line.kind == "winner" else cell(line.name)
        lines.append("| " + " | ".join([name, *map(_value, line.cells)]) + " |")
    if grid.has_intervals:
        lines += ["", "In brackets: 95 % intervals."]
    if grid.notes:
        lines += ["", *(f"- {cell(note)}" for note in grid.notes)]
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    """Escape text for a cell or a line of Markdown: no markup, no HTML, no link, no image."""
    escaped = _MARKUP.sub(r"\\\1", plain(text))
    escaped = re.sub(r"&(?=[#\w])", "&amp;", escaped)
    escaped = re.sub(r"<(?! )", "&lt;", escaped)  # "p < 0.01" stays: no tag begins with a space
    return re.sub(r"^(?=[>#+-])", r"\\", escaped)


def fenced(text: str, language: str = "") -> str:
    """Put text in a Markdown code block that nothing in it can close."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _value(one: Cell) -> str:
    text = one.text if re.fullmatch(r"[-\d.e+]*", one.text) else cell(one.text)
    text = f"**{text}**" if one.best else text
    return f"{text} {one.interval}" if one.interval else text
