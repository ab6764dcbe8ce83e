from __future__ import annotations

import json
import math
from types import SimpleNamespace

from evomerge.candidate import loads
from evomerge.report import Leaderboard
from evomerge.report.interchange import row_from_json, row_to_json
from evomerge.report.rows import Row, SplitScores, Value


def test_a_row_has_the_shape_that_readers_rely_on(board: Leaderboard) -> None:
    data = row_to_json(board.row("trial 1"))
    assert list(data) == ["key", "name", "kind", "trial", "recipe", "splits", "cost"]
    assert (data["name"], data["kind"], data["trial"]) == ("trial 1", "winner", 1)
    holdout = data["splits"]["holdout"]
    assert list(holdout) == ["objective", "tasks"]
    assert {"value", "low", "high"} <= set(holdout["objective"])
    assert set(holdout["tasks"]["zoo_facts"]["exact_match"]) == {
        "value",
        "stderr",
        "low",
        "high",
        "n",
    }


def test_the_recipe_is_a_recipe_file(board: Leaderboard) -> None:
    row = board.row("trial 1")
    assert loads(row_to_json(row)["recipe"]) == row.recipe


def test_searched_failure_and_front_come_back(lab: SimpleNamespace) -> None:
    row = Row(
        "trial 3",
        "finalist",
        3,
        lab.recipe(),
        {
            "search": SplitScores(None, Value(-1.5, n=4), {"a": {"gold": Value(-1.5, n=4)}}),
            "select": SplitScores(None, None, {}, failure="collapsed: empty answers"),
        },
        front=True,
    )
    assert row_from_json(row_to_json(row)) == row


def test_costs_conditions_and_estimates_come_back(lab: SimpleNamespace) -> None:
    scores = SplitScores(
        Value(0.5, n=4),
        None,
        {},
        costs={"parameters": 1.5},
        net=0.35,
        violations=(0.25, math.inf, -1.0),
        estimated=True,
    )
    row = Row("trial 3", "finalist", 3, lab.recipe(), {"search": scores})
    data = json.loads(json.dumps(row_to_json(row), allow_nan=False))
    assert row_from_json(data) == row
