from __future__ import annotations

import csv
import io
import json

import pytest

from evomerge.errors import UserError
from evomerge.report.listing import listing

RECORDS = [{"name": "a|b", "value": 1 / 3, "of": 2}, {"name": "=SUM(1)", "on": True}]


def test_csv_and_json_hold_numbers_in_full() -> None:
    rows = list(csv.DictReader(io.StringIO(listing(RECORDS, "csv"))))
    assert list(rows[0]) == ["name", "value", "of", "on"]
    assert float(rows[0]["value"]) == 1 / 3
    assert rows[1] == {"name": "'=SUM(1)", "value": "", "of": "", "on": "True"}
    assert json.loads(listing(RECORDS, "json")) == RECORDS


def test_tables_are_for_people() -> None:
    lines = listing(RECORDS).splitlines()
    assert lines[0].split() == ["name", "value", "of", "on"]
    assert lines[1].split() == ["a|b", "0.333", "2"]
    assert lines[0].index("value") == lines[1].index("0.333")
    marked = listing(RECORDS, "markdown").splitlines()
    assert marked[2] == "| a\\|b | 0.333 | 2 |  |"


def test_nothing_is_an_empty_list() -> None:
    assert listing([], "json") == "[]\n"
    assert listing([]).strip() == ""


def test_an_unknown_format() -> None:
    with pytest.raises(UserError, match='unknown format "jsn"; did you mean "json"'):
        listing(RECORDS, "jsn")
