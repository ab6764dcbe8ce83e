from __future__ import annotations

import csv
import json
from collections.abc import Callable
from io import StringIO
from types import SimpleNamespace

import pytest

from evomerge.errors import UserError
from evomerge.report import Leaderboard, leaderboard
from evomerge.report.layout import layout
from evomerge.report.render import compare, markdown, render
from evomerge.store import Store


def test_markdown_is_a_table_with_the_winner_in_bold(board: Leaderboard) -> None:
    lines = render(board, "markdown").splitlines()
    assert lines[2] == "|  | mean | extraction | tools | facts |"
    assert lines[3] == "| --- | ---: | ---: | ---: | ---: |"
    table = [line for line in lines if line.startswith("| ")]
    assert len(table) == 2 + 7
    assert {line.count("|") for line in table} == {6}
    assert table[-1].startswith("| **trial 1 (winner)** | **0.")
    assert "tests" not in lines[-1]
    assert any("trial 1 against best expert" in line for line in lines)


def test_markdown_escapes_names(make_store: Callable[..., Store], lab: SimpleNamespace) -> None:
    store = make_store(name="<b>|")
    lab.record(store, "a | <img src=x>", "search", "baseline", lab.outcome("ties", "search"))
    text = markdown(layout(leaderboard(store)))
    assert "a \\| &lt;img src=x>" in text
    assert "**&lt;b>\\|: search items" in text


def test_json_holds_all_splits_and_comes_back(board: Leaderboard) -> None:
    data = json.loads(render(board, "json", "search"))
    assert list(data) == ["schema", "campaign", "rows", "tests", "conditions"]
    assert set(data["rows"][0]["splits"]) == {"search", "select", "holdout"}
    assert Leaderboard.from_json(data) == board


def test_csv_has_a_line_a_row_and_empty_cells_for_what_is_missing(board: Leaderboard) -> None:
    lines = list(csv.DictReader(StringIO(render(board, "csv", "holdout"))))
    assert [line["name"] for line in lines] == [row.name for row in board.rows]
    winner = lines[-1]
    assert float(winner["objective"]) == board.row("trial 1").objective("holdout")
    assert (winner["kind"], winner["trial"], winner["split"]) == ("winner", "1", "holdout")
    assert winner["zoo_facts.exact_match_n"] == "80"
    finalist = lines[-2]
    assert (finalist["name"], finalist["objective"]) == ("trial 2", "")
    assert finalist["zoo_facts.exact_match"] == ""


def test_the_table_is_the_default(board: Leaderboard) -> None:
    text = render(board, width=100)
    assert text.startswith("small: holdout items")
    assert "trial 1 (winner)" in text
    assert render(board, split="select", width=100).startswith("small: select items")


@pytest.mark.parametrize(("kind", "split"), [("tabel", None), ("table", "holdot")])
def test_unknown_words_are_refused_with_the_nearest(
    board: Leaderboard, kind: str, split: str | None
) -> None:
    with pytest.raises(UserError, match=r'did you mean "(table|holdout)"\?'):
        render(board, kind, split)  # type: ignore[arg-type]


def test_a_comparison_in_every_format(board: Leaderboard) -> None:
    labels = ["results/a", "results/b"]
    table = compare([board, board], labels=labels, width=100)
    assert "results/b: trial 1" in table
    assert "results/b against results/a: +0.000" in table
    assert "| results/a: trial 1 |" in compare([board, board], "markdown", labels=labels)
    data = json.loads(compare([board, board], "json", labels=labels))
    assert [entry["label"] for entry in data["entries"]] == labels
    assert data["differences"][0]["overall"]["p"] == 1.0
    first, second = csv.DictReader(StringIO(compare([board, board], "csv", labels=labels)))
    assert first["difference"] == ""
    assert (second["campaign"], second["difference"], second["p"]) == ("results/b", "0.0", "1.0")
    with pytest.raises(UserError, match="unknown format"):
        compare([board, board], "html")  # type: ignore[arg-type]


def test_csv_has_costs_and_conditions_where_the_campaign_has_them(
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
