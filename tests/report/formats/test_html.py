"""Reports as HTML: well-formed, complete, and with nothing in a name that a browser would run."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from evomerge.report.formats import render
from evomerge.report.formats.html import write
from evomerge.report.grid import Cell, Column, Grid, Line, Report, numbers
from evomerge.report.layout import layout
from evomerge.report.leaderboard import Leaderboard, leaderboard
from evomerge.report.scores import Value
from evomerge.store import Store

EVIL = "<script>alert('x')</script> & \"<b>\"\x1b[31m\n"
SHOWN = "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; &quot;&lt;b&gt;&quot;[31m"


def parsed(text: str) -> ElementTree.Element:
    """Return the tree; fails where a tag is not closed or a character not escaped."""
    return ElementTree.fromstring(f"<body>{text}</body>")


def test_a_leaderboard_has_a_line_a_row_and_the_winner_in_bold(board: Leaderboard) -> None:
    grid = layout(board)
    tree = parsed(render(board, "html"))
    assert tree.findtext(".//caption") == "small: holdout items, 80 a task, exact_match"
    assert [one.text or "" for one in tree.findall(".//thead//th")] == list(grid.headers)
    lines = tree.findall(".//tbody/tr")
    names = ["".join(line.find("th").itertext()) for line in lines]  # type: ignore[union-attr]
    assert names == [line.name for line in grid.lines]
    assert {len(line.findall("td")) for line in lines} == {len(grid.headers) - 1}
    assert [one.text for one in tree.findall(".//tbody//th/b")] == ["trial 1 (winner)"]
    assert [one.text for one in tree.findall(".//li")] == list(grid.notes)
    searched = parsed(render(board, "html", "search")).findtext(".//caption")
    assert searched == "small: search items, 24 a task, exact_match"


def test_all_text_is_escaped() -> None:
    lines = (Line(EVIL, "winner", (Cell(EVIL),)),)
    text = write(Report((Grid(EVIL, ("", EVIL), lines, (EVIL,)),), [], None))
    assert text.count(SHOWN) == 5
    assert "<script" not in text
    parsed(text)


def test_names_from_a_campaign_are_escaped(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store(name="<script>alert(1)</script>")
    lab.record(store, "<img src=x onerror=y>", "search", "baseline", lab.outcome("ties", "search"))
    shown = render(leaderboard(store), "html")
    assert "<caption>&lt;script&gt;alert(1)&lt;/script&gt;: search items" in shown
    assert "&lt;img src=x onerror=y&gt;" in shown
    assert parsed(shown).find(".//script") is None


@pytest.mark.parametrize(
    ("higher", "best"), [(True, ["0.250", "0.500"]), (False, ["0.250", "0.250"])]
)
def test_the_best_of_a_column_is_bold_and_intervals_are_shown_where_asked(
    higher: bool, best: list[str]
) -> None:
    low, high = Value(0.25, low=0.125, high=0.375), Value(0.5)
    columns = (Column("a", (low, high), higher, interval=True), Column("b", (low, None)))
    grid = numbers("t", [("one", "base"), ("two", "expert")], columns, ())
    tree = parsed(write(Report((grid,), [], None)))
    first, without, second, blank = ("".join(one.itertext()) for one in tree.findall(".//td"))
    assert first == "0.250 [0.125, 0.375]"
    assert (without, second, blank) == ("0.250", "0.500", "")
    assert [one.text for one in tree.findall(".//td/b")] == best
