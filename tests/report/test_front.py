from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

from evomerge.report.front import front_json, mark_front
from evomerge.report.rows import Goal, Row, SplitScores, Value
from evomerge.store import Store

GOALS = (
    Goal("a", "acc", "acc"),
    Goal("b", "ppl", "ppl", higher_is_better=False, searched_higher_is_better=False),
)


def row(
    lab: SimpleNamespace, name: str, kind: str, a: float, b: float, split: str, **more: object
) -> Row:
    tasks = {"a": {"acc": Value(a)}, "b": {"ppl": Value(b)}}
    scores = SplitScores(None, None, tasks, **more)  # type: ignore[arg-type]
    return Row(name, kind, None, lab.recipe(), {split: scores})  # type: ignore[arg-type, dict-item]


def test_only_merges_that_no_other_beats_stand_on_the_front(lab: SimpleNamespace) -> None:
    rows = [
        row(lab, "expert", "expert", 1.0, 1.0, "select"),
        row(lab, "good at a", "finalist", 0.9, 5.0, "select"),
        row(lab, "good at b", "winner", 0.5, 2.0, "select"),
        row(lab, "beaten", "baseline", 0.5, 3.0, "select"),
        row(lab, "twin", "finalist", 0.9, 5.0, "select"),
        row(lab, "not selected", "finalist", 1.0, 1.0, "search"),
    ]
    marked = {one.name: one.front for one in mark_front(rows, GOALS)}
    assert marked == {
        "expert": None,
        "good at a": True,
        "good at b": True,
        "beaten": False,
        "twin": True,
        "not selected": None,
    }


def test_the_search_items_serve_until_something_is_selected(lab: SimpleNamespace) -> None:
    rows = [
        row(lab, "one", "finalist", 0.9, 1.0, "search"),
        row(lab, "two", "finalist", 0.8, 2.0, "search"),
    ]
    assert [one.front for one in mark_front(rows, GOALS)] == [True, False]
    assert mark_front([], GOALS) == []


def test_who_misses_a_condition_is_not_on_the_front_and_beats_nobody(lab: SimpleNamespace) -> None:
    rows = [
        row(lab, "one", "finalist", 0.9, 1.0, "select", violations=(0.1,)),
        row(lab, "two", "finalist", 0.8, 2.0, "select", violations=(0.0,)),
        row(lab, "three", "finalist", 0.7, 3.0, "select", violations=(-1.0,)),
    ]
    assert [one.front for one in mark_front(rows, GOALS)] == [False, True, False]


def test_a_cheaper_merge_is_beaten_by_no_dearer_one(lab: SimpleNamespace) -> None:
    rows = [
        row(lab, "dear", "finalist", 0.9, 1.0, "select", costs={"parameters": 1.5}),
        row(lab, "cheap", "finalist", 0.8, 2.0, "select", costs={"parameters": 1.0}),
    ]
    assert [one.front for one in mark_front(rows, GOALS)] == [True, True]


def test_the_front_is_saved_with_all_that_is_known_of_its_members(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store(mode="pareto", keep=[{"task": lab.tasks[2], "at_least": 0.5}])
    lab.record(store, "extraction", "search", "expert")
    rates = [(1.0, 0.0, 1.0), (0.0, 1.0, 1.0), (0.0, 0.0, 1.0), (1.0, 1.0, 0.0)]
    for number, rate in enumerate(rates):
        found = lab.outcome(f"trial {number}", "search", rate)
        if number == 3:  # best in two objectives, but it misses the condition
            found = replace(found, scores={**found.scores, lab.tasks[2]: lab.task_scores([0.0])})
        lab.tell(store, number, found)
    lab.record(store, "trial 1", "select", "finalist", lab.outcome("trial 1", "select", rates[1]))
    data = json.loads(front_json(store))
    assert [one["name"] for one in data["objectives"]] == list(lab.tasks)
    assert {one["direction"] for one in data["objectives"]} == {"maximize"}
    members = {one["trial"]: one for one in data["members"]}
    assert sorted(members) == [0, 1]
    assert list(members[0]["values"]) == ["search"]
    assert list(members[1]["values"]["select"].values()) == [0.0, 1.0, 1.0]
    assert "method: task_arithmetic" in members[0]["recipe"]


def test_an_empty_campaign_has_an_empty_front(make_store: Callable[..., Store]) -> None:
    assert json.loads(front_json(make_store(mode="pareto")))["members"] == []
