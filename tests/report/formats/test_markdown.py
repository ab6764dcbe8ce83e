from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.report.formats import render
from evomerge.report.formats.markdown import cell, fenced, table
from evomerge.report.grid import plain, words
from evomerge.report.layout import layout
from evomerge.report.leaderboard import Leaderboard, leaderboard
from evomerge.store import Store


def test_what_steers_a_terminal_is_dropped() -> None:
    assert plain("a\x1b[31mred\x07\n\tb\u202e") == "a[31mred b"


@given(st.text())
def test_plain_text_stays_on_one_line(text: str) -> None:
    assert len(plain(text).splitlines()) <= 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", "a\\|b"),
        ("![x](http://h)", "!\\[x\\](http://h)"),
        ("<script>", "&lt;script>"),
        ("p < 0.01", "p < 0.01"),
        ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
        ("> quoted", "\\> quoted"),
        ("# title", "\\# title"),
        ("zoo_facts λ=0.4", "zoo_facts λ=0.4"),
    ],
)
def test_markdown_is_shown_not_obeyed(text: str, expected: str) -> None:
    assert cell(text) == expected


def test_nothing_inside_closes_a_code_block() -> None:
    lines = fenced("before\n````\n# not a title", "yaml").splitlines()
    assert lines[0] == "`````yaml"
    assert lines[-1] == "`````"
    assert fenced("a: 1\n") == "```\na: 1\n```"


def test_a_table_has_the_winner_in_bold(board: Leaderboard) -> None:
    lines = render(board, "markdown").splitlines()
    assert lines[2] == "|  | mean | extraction | tools | facts |"
    assert lines[3] == "| --- | ---: | ---: | ---: | ---: |"
    rows = [line for line in lines if line.startswith("| ")]
    assert len(rows) == 2 + 7
    assert {line.count("|") for line in rows} == {6}
    assert rows[-1].startswith("| **trial 1 (winner)** | **0.")
    assert any("trial 1 against the best expert, " in line for line in lines)


def test_names_and_words_are_escaped(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store(name="<b>|")
    lab.record(store, "a | <img src=x>", "search", "baseline", lab.outcome("ties", "search"))
    text = table(layout(leaderboard(store)))
    assert "a \\| &lt;img src=x>" in text
    assert "**&lt;b>\\|: search items" in text
    assert (
        table(words([{"": "x", "a": 1 / 3, "b": "a|b"}])).splitlines()[-1]
        == "| x | 0.333 | a\\|b |"
    )
