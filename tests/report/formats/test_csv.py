from __future__ import annotations

import csv
from collections.abc import Callable
from io import StringIO
from types import SimpleNamespace

import pytest

from evomerge.report.formats import render
from evomerge.report.formats.csv import write
from evomerge.report.grid import Report
from evomerge.report.leaderboard import Leaderboard, leaderboard
from evomerge.store import Store


def test_a_line_a_record_numbers_in_full_and_no_formulas() -> None:
    records = [{"name": "a|b", "value": 1 / 3, "of": 2}, {"name": "=SUM(1)", "on": True}]
    rows = list(csv.DictReader(StringIO(write(Report((), records, None)))))
    assert list(rows[0]) == ["name", "value", "of", "on"]
    assert float(rows[0]["value"]) == 1 / 3
    assert rows[1] == {"name": "'=SUM(1)", "value": "", "of": "", "on": "True"}


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_a_spreadsheet_takes_no_text_for_a_formula(text: str) -> None:
    assert write(Report((), [{"a": text}], None)) == f"a\n'{text}\n"


def test_a_leaderboard_has_a_line_a_row_and_empty_cells_for_what_is_missing(
    board: Leaderboard,
) -> None:
    lines = list(csv.DictReader(StringIO(render(board, "csv", "holdout"))))
    assert [line["name"] for line in lines] == [row.name for row in board.rows]
    winner = lines[-1]
    assert float(winner["objective"]) == board.row("trial 1").objective("holdout")
    assert (winner["kind"], winner["trial"], winner["split"]) == ("winner", "1", "holdout")
    assert winner["zoo_facts.exact_match_n"] == "80"
    finalist = lines[-2]
    assert (finalist["name"], finalist["objective"]) == ("trial 2", "")
    assert finalist["zoo_facts.exact_match"] == ""


def test_costs_and_constraints_are_there_where_the_campaign_has_them(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store(
        keep=[{"task": "zoo_tools", "at_least": 0.98}],
        costs=[{"cost": "parameters", "weight": 0.1}],
    )
    lab.fill(store)
    rows = list(csv.DictReader(StringIO(render(leaderboard(store), "csv", "holdout"))))
    winner = rows[-1]
    assert float(winner["net"]) == pytest.approx(float(winner["objective"]) - 0.1)
    assert winner["cost.parameters"] == "1.0"
    assert float(winner["missed.zoo_tools"]) <= 0
    finalist = next(one for one in rows if one["kind"] == "finalist")
    assert (finalist["net"], finalist["cost.parameters"], finalist["missed.zoo_tools"]) == ("",) * 3


def test_every_constraint_on_a_task_has_a_column(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    keep = [{"task": "zoo_tools", "at_least": 2.0, "of": "best_expert"}]
    store = make_store(keep=[*keep, {"task": "zoo_tools", "at_least": 0.1, "of": "base"}])
    lab.fill(store)
    *_, winner = csv.DictReader(StringIO(render(leaderboard(store), "csv", "holdout")))
    assert float(winner["missed.zoo_tools.1"]) > 0 >= float(winner["missed.zoo_tools.2"])
