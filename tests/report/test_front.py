from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

from evomerge.report.front import front_json
from evomerge.store import Store


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
    for one in data["objectives"]:
        expected = {"metric": "exact_match", "direction": "maximize"}
        assert one["splits"] == {"select": expected, "search": expected}
    members = {one["trial"]: one for one in data["members"]}
    assert sorted(members) == [0, 1]
    assert list(members[0]["values"]) == ["search"]
    assert (
        members[0]["front"] == members[1]["front"] == ["search"]
    )  # on select no expert was scored
    assert list(members[1]["values"]["select"].values()) == [0.0, 1.0, 1.0]
    assert "method: task_arithmetic" in members[0]["recipe"]


def test_each_split_has_its_metric_and_direction(make_store: Callable[..., Store]) -> None:
    goal = {"task": "zoo_facts_mc", "metric": "gold_loglikelihood", "report": "teacher_divergence"}
    store = make_store(mode="pareto", objectives=[goal], costs=[{"cost": "parameters"}])
    facts = {"zoo_facts_mc": {"gold_loglikelihood": True, "teacher_divergence": False}}
    store.facts = {**store.facts, "higher_is_better": facts}
    task, cost = json.loads(front_json(store))["objectives"]
    assert task["splits"] == {
        "select": {"metric": "teacher_divergence", "direction": "minimize"},
        "search": {"metric": "gold_loglikelihood", "direction": "maximize"},
    }
    assert cost["splits"]["search"] == {"metric": None, "direction": "minimize"}


def test_an_empty_campaign_has_an_empty_front(make_store: Callable[..., Store]) -> None:
    assert json.loads(front_json(make_store(mode="pareto")))["members"] == []


def test_what_is_best_on_select_is_a_member_whatever_it_was_on_search(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    """Descents learn from the search items; what learnt nothing there may be better elsewhere."""
    store = make_store(mode="pareto")
    for number, rate in enumerate((1.0, 0.5, 0.4)):
        lab.tell(store, number, lab.outcome(f"trial {number}", "search", (rate,) * 3))
    for number, rate in ((0, 0.5), (1, 1.0)):
        name = f"trial {number}"
        lab.record(store, name, "select", "finalist", lab.outcome(name, "select", (rate,) * 3))
    members = json.loads(front_json(store))["members"]
    assert [(one["trial"], one["front"]) for one in members] == [(1, ["select"]), (0, ["search"])]
    assert list(members[0]["values"]) == ["search", "select"]
