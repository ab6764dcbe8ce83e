from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.report.escape import fenced, markdown_cell, plain, spreadsheet_cell


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
    assert markdown_cell(text) == expected


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_a_spreadsheet_takes_no_text_for_a_formula(text: str) -> None:
    assert spreadsheet_cell(text) == f"'{text}"
    assert spreadsheet_cell("trial 1") == "trial 1"


def test_nothing_inside_closes_a_code_block() -> None:
    lines = fenced("before\n````\n# not a title", "yaml").splitlines()
    assert lines[0] == "`````yaml"
    assert lines[-1] == "`````"
    assert fenced("a: 1\n") == "```\na: 1\n```"
