from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from evomerge.report.figures.leaderboard import leaderboard_figure
from evomerge.report.leaderboard import Leaderboard
from evomerge.report.material import Material
from evomerge.store import Store
from tests.report import studies


def test_points_and_intervals_are_the_leaderboards(store: Store, board: Leaderboard) -> None:
    drawn = leaderboard_figure(Material.of(store))
    assert drawn is not None
    assert drawn["layout"]["yaxis"]["ticktext"] == ["mean", "extraction", "tools", "facts"]
    goals, shown = board.campaign.goals, set()
    for trace in drawn["data"]:
        whiskers = trace.get("error_x")
        for at, (x, y, name) in enumerate(zip(trace["x"], trace["y"], trace["text"], strict=True)):
            scores = board.row(name).splits.get("holdout")
            assert scores is not None
            line = round(y)
            value = (
                scores.objective
                if line == 0
                else board.row(name).reported("holdout", goals[line - 1])
            )
            assert value is not None
            assert x == round(value.value, 4)
            shown.add((name, line))
            if whiskers:
                assert value.low is not None
                assert value.high is not None
                assert x - whiskers["arrayminus"][at] == pytest.approx(value.low, abs=1e-4)
                assert x + whiskers["array"][at] == pytest.approx(value.high, abs=1e-4)
    scored = [row.name for row in board.rows if "holdout" in row.splits]
    assert shown == {(name, line) for name in scored for line in range(4)}


def test_the_best_of_a_kind_has_an_interval_and_a_name(store: Store) -> None:
    drawn = leaderboard_figure(Material.of(store))
    assert drawn is not None
    names = {trace["name"] for trace in drawn["data"] if "error_x" in trace}
    assert names == {
        "winner: trial 1",
        "best naive merge: task arithmetic λ…",
        "best expert: extraction",
        "base",
    }


def test_tasks_of_unlike_scales_have_axes_of_their_own(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    goals = [{"task": lab.tasks[0], "metric": "exact_match"}, {"task": "wiki", "metric": "ppl"}]
    facts = {"higher_is_better": {lab.tasks[0]: {"exact_match": True}, "wiki": {"ppl": False}}}
    store = make_store(facts=facts, objectives=goals)
    for name, kind in (("base", "base"), ("tools", "expert")):
        scores = {"wiki": lab.task_scores([20.0, 30.0], "ppl")}
        lab.record(store, name, "search", kind, lab.outcome(name, "search", **scores))
    drawn = leaderboard_figure(Material.of(store))
    assert drawn is not None
    labels = [drawn["layout"][f"yaxis{at}"]["ticktext"] for at in ("", "2", "3")]
    assert labels == [["mean"], [lab.tasks[0]], ["wiki ↓"]]
    perplexities = [trace["x"] for trace in drawn["data"] if trace.get("xaxis") == "x3"]
    assert perplexities == [[25.0], [25.0]]


def test_one_objective_has_one_line_and_no_mean(tmp_path: Path) -> None:
    goals = [{"task": studies.TASKS[0], "metric": studies.METRIC}]
    with studies.create(tmp_path / "out", objectives=goals) as store:
        studies.record(store, "base", "base", "search", (5, 5))
        drawn = leaderboard_figure(Material.of(store))
    assert drawn is not None
    assert drawn["layout"]["yaxis"]["ticktext"] == ["zoo_tools"]
    assert [trace["x"] for trace in drawn["data"]] == [[0.25]]
