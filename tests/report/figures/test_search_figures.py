"""History, front, importances, timeline, costs and gap: their numbers are those of the store."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import optuna
import pytest

import evomerge
from evomerge.report.figures import history, timeline
from evomerge.report.figures.costs import costs_figure
from evomerge.report.figures.drawing import Drawing
from evomerge.report.figures.front import front_figure
from evomerge.report.figures.gap import gap_figure
from evomerge.report.figures.importances import importances_figure, readable_names
from evomerge.report.front import front_json
from evomerge.report.leaderboard import leaderboard
from evomerge.report.material import Material
from evomerge.store import Store
from evomerge.store.importances import BEST
from tests.report import studies


def by_name(drawn: Drawing | None) -> dict[str, Drawing]:
    assert drawn is not None
    return {trace["name"]: trace for trace in drawn["data"]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "out"
    studies.write(folder).close()
    return folder


@pytest.fixture
def material(finished: Path) -> Material:
    with Store.open(finished, write=False) as store:
        read = Material.of(store)
        assert read.board
        assert read.trials
        assert read.spans
        assert read.importances
        return read


def test_the_history_is_that_of_the_store(material: Material) -> None:
    traces = by_name(history.history_figure(material))
    for name, state in (("trials", "complete"), ("estimates of pruned trials", "pruned")):
        some = [trial for trial in material.trials if trial.state == state]
        assert traces[name]["x"] == [trial.number + 1 for trial in some]
        assert traces[name]["y"] == [round(trial.values[0], 4) for trial in some if trial.values]
        assert traces[name]["text"] == [f"trial {trial.number}" for trial in some]
    best = max(t.values[0] for t in material.trials if t.state == "complete" and t.values)
    assert traces["best so far"]["y"][-1] == round(best, 4)
    expert = material.board.row("tools").objective("search")
    assert expert is not None
    assert traces["best expert: tools"]["y"] == [round(expert, 4)] * 2
    assert traces["best expert: tools"]["x"] == [0, 30]


def test_the_history_has_three_axes(material: Material) -> None:
    drawn = history.history_figure(material)
    assert drawn is not None
    (menu,) = drawn["layout"]["updatemenus"]
    places = {one["label"]: one["args"][0]["x"] for one in menu["buttons"]}
    assert list(places) == ["trials", "items", "seconds"]
    assert places["trials"] == [trace["x"] for trace in drawn["data"]]
    points = {point.number: point for point in material.curve.points}
    for at, name in enumerate(drawn["data"][0]["text"]):
        point = points[int(name.removeprefix("trial "))]
        assert places["items"][0][at] == point.item_evaluations
        assert places["seconds"][0][at] == round(point.seconds, 1)


def test_of_many_trials_some_are_drawn_and_all_improvements(
    material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = by_name(history.history_figure(material))
    monkeypatch.setattr(history, "MOST", 10)
    some = by_name(history.history_figure(material))
    assert len(some["trials"]["y"]) < 10
    assert some["best so far"] == whole["best so far"]


def test_importances_are_optunas_on_the_study(finished: Path, material: Material) -> None:
    drawn = importances_figure(material)
    assert drawn is not None
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST)
    study = evomerge.open(finished).study
    theirs = optuna.importance.get_param_importances(study, evaluator=evaluator)
    assert material.importances == pytest.approx(theirs)
    (trace,) = drawn["data"]
    assert trace["x"] == [round(share, 4) for share in material.importances.values()]
    assert trace["text"] == [
        f"{expert}, layers {layers}"
        for _, expert, layers in (name.split("/") for name in material.importances)
    ]


def test_too_few_trials_tell_no_importance(tmp_path: Path) -> None:
    with studies.create(tmp_path / "out") as store:
        for number in range(19):
            studies.tell(store, number, studies.outcome("search", (number, 1)))
        assert importances_figure(Material.of(store)) is None


def test_names_of_several_parameters_keep_the_parameter() -> None:
    names = ["weight/facts/0-2/mlp", "density", "stack/include/facts/0-2"]
    assert list(readable_names(names).values()) == [
        "weight, facts, layers 0-2, mlp",
        "density",
        "stack, include, facts, layers 0-2",
    ]


def test_bars_are_the_work_of_the_workers(material: Material) -> None:
    drawn = timeline.timeline_figure(material)
    assert drawn is not None
    bars = [trace for trace in drawn["data"] if trace["type"] == "bar"]
    assert {trace["name"]: len(trace["x"]) for trace in bars} == {
        "leaderboard": len(material.evaluations),
        "gradients": 1,
        "trials": 23,
        "races lost": 6,
        "failed": 1,
    }
    lengths = np.array([x for trace in bars for x in trace["x"]])
    costs = [trial.outcome.cost for trial in material.trials if trial.outcome]
    costs += [one.outcome.cost for one in material.evaluations]
    costs += [step.cost for step in material.steps]
    seconds = sum(cost.merge_seconds + cost.score_seconds for cost in costs)
    assert lengths.sum() == pytest.approx(seconds)
    (failed,) = (trace for trace in drawn["data"] if trace["type"] == "scatter")
    assert failed["text"] == ["trial 7: not finite: NaN in &lt;layer&gt; 3"]
    assert drawn["layout"]["yaxis"]["ticktext"] == ["node/1", "node/0"]


def test_of_many_spans_bars_are_shares_of_the_time(
    material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = by_name(timeline.timeline_figure(material))
    monkeypatch.setattr(timeline, "MOST", 20)
    some = by_name(timeline.timeline_figure(material))
    bars = {name: trace for name, trace in some.items() if trace["type"] == "bar"}
    assert sum(len(trace["x"]) for trace in bars.values()) <= 20
    assert any("more" in text for trace in bars.values() for text in trace["text"])
    for name, trace in bars.items():
        assert sum(trace["x"]) == pytest.approx(sum(whole[name]["x"]), abs=0.1)


def test_the_front_is_that_of_the_front_file(tmp_path: Path) -> None:
    with studies.write(tmp_path / "out", "pareto") as store:
        traces = by_name(front_figure(Material.of(store)))
        members = [
            one for one in json.loads(front_json(store))["members"] if "search" in one["front"]
        ]
        trials = store.trials()
    front = traces["front"]
    points = zip(front["text"], front["x"], front["y"], strict=True)
    assert sorted(points) == sorted(
        (one["name"], *(round(value, 4) for value in one["values"]["search"].values()))
        for one in members
    )
    complete = sum(trial.state == "complete" for trial in trials)
    assert len(traces["trials"]["x"]) + len(members) == complete
    assert traces["winner on select"]["x"] == [17 / 20]
    assert traces["experts"]["y"] == [2 / 20, 15 / 20]


def test_other_metrics_than_the_searched_ones_are_not_drawn_beside_them(tmp_path: Path) -> None:
    with studies.write(tmp_path / "out", "pareto") as store:
        goals = store.campaign.objectives
        first = goals[0].model_copy(update={"report": "acc"})
        store.campaign = store.campaign.model_copy(update={"objectives": (first, *goals[1:])})
        traces = by_name(front_figure(Material.of(store)))
    assert {"front", "experts"} <= traces.keys()
    assert not [name for name in traces if name.endswith("on select")]


def test_a_tradeoff_is_drawn_against_its_cost(tmp_path: Path) -> None:
    with studies.write(tmp_path / "out", "tradeoff") as store:
        drawn = front_figure(Material.of(store))
        stack = next(trial for trial in store.trials() if trial.number == 12)
    assert drawn is not None
    assert drawn["layout"]["xaxis"]["title"]["text"] == "mean ↑"
    assert drawn["layout"]["yaxis"]["title"]["text"] == "parameters ↓"
    front = by_name(drawn)["front"]
    assert stack.values is not None
    at = front["text"].index("trial 12")
    assert (front["x"][at], front["y"][at]) == tuple(round(value, 4) for value in stack.values)


def test_more_than_two_values_are_drawn_in_pairs(tmp_path: Path) -> None:
    costs = [{"cost": "parameters"}]
    with studies.create(tmp_path / "out", mode="pareto", costs=costs) as store:
        for number in range(3):
            values = (number / 10, 0.5, 1.0 - number / 10)
            studies.tell(store, number, studies.outcome("search", (number, 10)), values=values)
        drawn = front_figure(Material.of(store))
    assert drawn is not None
    (menu,) = drawn["layout"]["updatemenus"]
    assert [one["label"] for one in menu["buttons"]] == [
        "tools ↑, facts ↑",
        "tools ↑, parameters ↓",
        "facts ↑, parameters ↓",
    ]
    assert menu["buttons"][1]["args"][0]["y"] == [[1.0, 0.9], [0.8]]
    assert menu["buttons"][1]["args"][1]["yaxis.title.text"] == "parameters ↓"


def test_quality_stands_against_what_serving_takes(tmp_path: Path) -> None:
    with studies.write(tmp_path / "out", "routed") as store:
        drawn = costs_figure(Material.of(store))
        board = leaderboard(store)
    assert drawn is not None
    row = board.row("trial 12")
    assert row.serving is not None
    labels = [one["label"] for one in drawn["layout"]["updatemenus"][0]["buttons"]]
    assert labels == ["parameters", "active", "time"]
    places = [one["args"][0]["x"] for one in drawn["layout"]["updatemenus"][0]["buttons"]]
    at = [trace["name"] for trace in drawn["data"]].index("winner")
    expected = (
        row.serving.relative_parameters,
        row.serving.relative_active,
        row.serving.relative_time,
    )
    assert [each[at] for each in places] == [[pytest.approx(one)] for one in expected]
    assert drawn["data"][at]["y"] == [pytest.approx(row.objective("holdout"))]


def test_the_gap_is_the_leaderboards(material: Material) -> None:
    traces = by_name(gap_figure(material))
    (gap,) = material.board.tests.generalisation_gap
    winner = traces["winner: trial 12"]
    assert winner["x"] == ["search", "select", "holdout"]
    assert winner["y"] == [round(one, 4) for one in (gap.search, gap.select or 0, gap.holdout)]
    assert set(traces) == {
        "winner: trial 12",
        "best naive merge: uniform average",
        "best expert: tools",
        "base",
    }
    value = material.board.row("trial 12").splits["holdout"].objective
    assert value is not None
    assert value.low is not None
    assert winner["error_y"]["arrayminus"][2] == pytest.approx(value.value - value.low, abs=1e-4)
