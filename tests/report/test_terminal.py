from __future__ import annotations

import re

import pytest

from evomerge.report import Leaderboard
from evomerge.report.layout import Column, Grid, Line, layout
from evomerge.report.rows import Value
from evomerge.report.terminal import terminal_table

TASKS = ("extraction", "dialogue", "tools", "translation", "facts")


def grid(tasks: int = 5, name: str = "task arithmetic λ=0.4 (tuned)") -> Grid:
    columns = [Column("mean", interval=True)]
    columns += [Column(f"{TASKS[i % 5]}{i // 5 or ''}") for i in range(tasks)]
    values = tuple(Value(0.101 + i / 1000, 0.05, 0.15) for i in range(tasks + 1))
    lines = (Line("base", "base", values), Line(name, "baseline", (None, *values[1:])))
    return Grid("title", tuple(columns), lines, ("a note " * 30,))


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
@pytest.mark.parametrize("tasks", [1, 5, 23])
def test_it_fits_and_no_number_is_cut(width: int, tasks: int) -> None:
    text = terminal_table(grid(tasks), width=width)
    assert max(len(line) for line in text.splitlines()) <= width
    for i in range(tasks):
        assert text.count(f"{0.102 + i / 1000:.3f}") == 2, f"column {i}"


def test_eighty_columns_hold_five_tasks_with_their_names() -> None:
    head = terminal_table(grid(), width=80).splitlines()[1]
    assert head.split() == ["mean", *TASKS]


def test_the_interval_stands_beside_the_mean_and_blanks_are_shown() -> None:
    lines = terminal_table(grid(), width=100).splitlines()
    assert "0.101 ±.050" in lines[3]
    assert lines[5].startswith("task arithmetic λ=0.4 (tuned)")
    assert "–" in lines[5]


def test_color_only_when_asked_for(board: Leaderboard) -> None:
    plain, colored = (terminal_table(layout(board), width=100, color=c) for c in (False, True))
    assert "\x1b[" not in plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored).split() == plain.split()


def test_the_width_of_the_terminal_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "64")
    assert terminal_table(grid()) == terminal_table(grid(), width=64)
    assert terminal_table(grid(), width=64) != terminal_table(grid(), width=100)


def test_names_cannot_style_or_steer_the_terminal() -> None:
    text = terminal_table(grid(name="[bold red]x[/]\x1b[2J"), width=100)
    assert "[bold red]x[/][2J" in text
    assert "\x1b" not in text
