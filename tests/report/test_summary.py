from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from evomerge.report.summary import Summary, goals_of, summarise
from evomerge.store import Store


def test_a_campaign_in_short(store: Store, lab: SimpleNamespace) -> None:
    summary = summarise(store)
    assert (summary.trials, summary.complete, summary.failed) == (4, 3, 1)
    assert summary.experts == {"extraction": "zoo:extraction", "tools": "zoo:tools"}
    assert summary.items == lab.items
    assert summary.versions["lm_eval"] == "0.4.13"
    assert summary.prompts == lab.facts["prompts"]
    assert [goal.task for goal in summary.goals] == list(lab.tasks)


def test_it_comes_back_from_json(store: Store) -> None:
    summary = summarise(store)
    assert Summary.from_json(summary.to_json()) == summary


def test_directions_come_from_the_facts(make_store: Callable[..., Store]) -> None:
    facts = {"higher_is_better": {"t": {"ppl": False, "gold_loglikelihood": True}}}
    objective = {"task": "t", "metric": "gold_loglikelihood", "report": "ppl", "weight": 2.0}
    store = make_store(facts=facts, objectives=[objective])
    (goal,) = goals_of(store.campaign, store.facts)
    assert (goal.higher_is_better, goal.searched_higher_is_better) == (False, True)
    assert (goal.metric, goal.report, goal.weight) == ("gold_loglikelihood", "ppl", 2.0)


def test_unknown_facts_are_not_invented(make_store: Callable[..., Store]) -> None:
    summary = summarise(make_store(facts={}))
    assert (summary.versions, summary.prompts) == ({}, {})
    assert all(goal.higher_is_better for goal in summary.goals)
