from __future__ import annotations

from types import SimpleNamespace

from evomerge.report.front import mark_front
from evomerge.report.rows import Goal, Row, SplitScores, Value

GOALS = (
    Goal("a", "acc", "acc"),
    Goal("b", "ppl", "ppl", higher_is_better=False, searched_higher_is_better=False),
)


def row(lab: SimpleNamespace, name: str, kind: str, a: float, b: float, split: str) -> Row:
    tasks = {"a": {"acc": Value(a)}, "b": {"ppl": Value(b)}}
    return Row(name, kind, None, lab.recipe(), {split: SplitScores(None, None, tasks)})  # type: ignore[arg-type, dict-item]


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
