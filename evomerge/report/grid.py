"""What a format writes: tables of text for people, records for spreadsheets, plain data for programs.

All numbers are computed, rounded and compared here and before; a format only sets the text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evomerge.report.scores import Value
from evomerge.report.statistics import PairedTest

Plain = str | int | float | bool | None


@dataclass(frozen=True)
class Cell:
    """One value as text, empty where there is none.

    `interval` is its 95 % interval, such as `[0.712, 0.788]`, and `half` half its width, such as `±.038`;
    both empty where none is shown. `best`: of its column.
    """

    text: str = ""
    interval: str = ""
    half: str = ""
    best: bool = False


@dataclass(frozen=True)
class Line:
    """One line of a grid: a name, a kind (lines of a kind stand together), and a cell a column."""

    name: str
    kind: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Grid:
    """One table: the headers of the names and of each column, the lines, and notes of a sentence each.

    `words`: the cells are words rather than numbers.
    """

    title: str
    headers: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    words: bool = False

    @property
    def has_intervals(self) -> bool:
        """Whether any cell shows one."""
        return any(cell.interval for line in self.lines for cell in line.cells)


@dataclass(frozen=True)
class Report:
    """Everything a format may write of a leaderboard, a comparison or trials.

    Attributes:
        grids: For people.
        records: For spreadsheets: one flat record a line, numbers in full.
        data: For programs: dicts, lists, strings and numbers.
        source: What it reports, such as a `Leaderboard`, for formats that show more than tables.
    """

    grids: tuple[Grid, ...]
    records: Sequence[Mapping[str, Plain]]
    data: Any
    source: object = field(default=None, repr=False)


@dataclass(frozen=True)
class Column:
    """One column of numbers, a value a line (None: blank), and which of them is best."""

    header: str
    values: Sequence[Value | None]
    higher_is_better: bool = True
    interval: bool = False

    def cells(self) -> list[Cell]:
        """Return its values as text."""
        known = [value.value for value in self.values if value is not None]
        top = (max if self.higher_is_better else min)(known, default=None)
        return [_cell(value, top, self.interval) for value in self.values]


def numbers(
    title: str, names: Sequence[tuple[str, str]], columns: Sequence[Column], notes: Sequence[str]
) -> Grid:
    """Lay out columns of numbers; `names` are each line's name and kind."""
    rows = zip(*(column.cells() for column in columns), strict=True)
    lines = (Line(name, kind, cells) for (name, kind), cells in zip(names, rows, strict=True))
    headers = ("", *(column.header for column in columns))
    return Grid(title, headers, tuple(lines), tuple(notes))


def words(records: Sequence[Mapping[str, Plain]]) -> Grid:
    """Lay out records, the columns in the order in which they first occur."""
    if not records:
        return Grid("nothing yet", ("",), (), words=True)
    columns = list(dict.fromkeys(column for record in records for column in record))
    lines = []
    for record in records:
        name, *cells = (_shown(record.get(column)) for column in columns)
        lines.append(Line(name, "", tuple(map(Cell, cells))))
    return Grid("", tuple(columns), tuple(lines), words=True)


def number(value: float) -> str:
    """Write a score: three decimals, fewer where the number is large."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"


def difference(value: float) -> str:
    """Write a difference with its sign."""
    return f"{value:+.3f}" if abs(value) < 100 else f"{value:+.4g}"


def with_p(test: PairedTest, p: float) -> str:
    """Write a tested difference with its 95 % interval, and p such as `p = 0.012` or `p < 0.0001`."""
    return f"{with_ends(test)}, {p_value(p)} ({test.method}, {test.n} items, Holm-corrected)"


def p_value(p: float) -> str:
    """Write p, such as `p = 0.012` or `p < 0.0001`."""
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def with_ends(test: PairedTest) -> str:
    """Write a difference with its 95 % interval."""
    return f"{difference(test.difference)} ({difference(test.low)} to {difference(test.high)})"


def short_names(tasks: Sequence[str]) -> list[str]:
    """Drop the words, set off by `_`, that all names begin with, such as the `zoo_` of `zoo_facts`."""
    parts = [task.split("_") for task in tasks]
    shortest = min((len(words) for words in parts), default=1)
    cut = 0
    while len(parts) > 1 and cut < shortest - 1 and len({words[cut] for words in parts}) == 1:
        cut += 1
    return ["_".join(words[cut:]) for words in parts]


def plain(text: str) -> str:
    """Put text from outside on one line and drop what could steer a terminal."""
    spaced = re.sub(r"\s+", " ", text).strip()
    return "".join(char for char in spaced if unicodedata.category(char) not in ("Cc", "Cf"))


def _cell(value: Value | None, top: float | None, interval: bool) -> Cell:
    if value is None:
        return Cell()
    text, best = number(value.value), value.value == top
    if not interval or value.low is None or value.high is None:
        return Cell(text, best=best)
    half = number((value.high - value.low) / 2).removeprefix("0")
    return Cell(text, f"[{number(value.low)}, {number(value.high)}]", f"±{half}", best)


def _shown(value: Plain) -> str:
    if isinstance(value, float):
        return number(value)
    return "" if value is None else str(value)
