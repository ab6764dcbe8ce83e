from __future__ import annotations

import re

import pytest
from rich.cells import cell_len

from evomerge.report.formats import render
from evomerge.report.formats.table import write
from evomerge.report.grid import Column, Grid, Report, numbers, words
from evomerge.report.leaderboard import Leaderboard
from evomerge.report.scores import Value

TASKS = ("extraction", "dialogue", "tools", "translation", "facts")


def report(tasks: int = 5, name: str = "task arithmetic λ=0.4 (tuned)") -> Report:
    values = [Value(0.101 + i / 1000, 0.05, 0.15) for i in range(tasks + 1)]
    columns = [Column("mean", [values[0], None], interval=True)]
    columns += [Column(f"{TASKS[i % 5]}{i // 5 or ''}", [values[i + 1]] * 2) for i in range(tasks)]
    names = [("base", "base"), (name, "baseline")]
    return of(numbers("title", names, columns, ("a note " * 30,)))


def of(grid: Grid) -> Report:
    return Report((grid,), [], None)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
@pytest.mark.parametrize("tasks", [1, 5, 12, 23])
@pytest.mark.parametrize("name", ["ties", "a long name " * 4, "模型" * 20, "x" * 90])
def test_it_fits_and_no_number_is_cut(width: int, tasks: int, name: str) -> None:
    text = write(report(tasks, name), width=width)
    assert max(cell_len(line) for line in text.splitlines()) <= width
    for i in range(tasks):
        assert text.count(f"{0.102 + i / 1000:.3f}") == 2, f"column {i}"


def test_eighty_columns_hold_five_tasks_with_their_names() -> None:
    head = write(report(), width=80).splitlines()[1]
    assert head.split() == ["mean", *TASKS]


def test_the_interval_stands_beside_the_mean_and_blanks_are_shown() -> None:
    lines = write(report(), width=100).splitlines()
    assert "0.101 ±.050" in lines[3]
    assert lines[5].startswith("task arithmetic λ=0.4 (tuned)")
    assert "–" in lines[5]


def test_color_only_when_asked_for(board: Leaderboard) -> None:
    plain, colored = (render(board, width=100, color=color) for color in (False, True))
    assert "\x1b[" not in plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored).split() == plain.split()


def test_the_width_of_the_terminal_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "64")
    assert write(report()) == write(report(), width=64)
    assert write(report(), width=64) != write(report(), width=100)


def test_names_cannot_style_or_steer_the_terminal() -> None:
    text = write(report(name="[bold red]x[/]\x1b[2J :skull:"), width=100)
    assert "[bold red]x[/][2J :skull:" in text
    assert "\x1b" not in text


def test_words_stand_under_their_headers() -> None:
    lines = write(of(words([{"name": "a|b", "value": 1 / 3, "of": 2}, {"name": "c", "on": True}])))
    head, _, first, second = lines.splitlines()
    assert (head.split(), first.split()) == (
        ["name", "value", "of", "on"],
        ["a|b", "0.333", "2", "–"],
    )
    assert head.index("value") == first.index("0.333")
    assert second.split() == ["c", "–", "–", "True"]
    assert write(of(words([]))) == "nothing yet\n"
