from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from evomerge.report.summary import goals_of, portable, summarise
from evomerge.store import Store


def test_a_campaign_in_short(store: Store, lab: SimpleNamespace) -> None:
    summary = summarise(store, store.trials())
    assert (summary.trials, summary.complete, summary.failed) == (4, 3, 1)
    assert summary.experts == {"extraction": "zoo:extraction", "tools": "zoo:tools"}
    assert summary.items == lab.items
    assert summary.versions["lm_eval"] == "0.4.13"
    assert summary.prompts == lab.facts["prompts"]
    assert [goal.task for goal in summary.goals] == list(lab.tasks)


def test_directions_come_from_the_facts(make_store: Callable[..., Store]) -> None:
    facts = {"higher_is_better": {"t": {"ppl": False, "gold_loglikelihood": True}}}
    objective = {"task": "t", "metric": "gold_loglikelihood", "report": "ppl", "weight": 2.0}
    store = make_store(facts=facts, objectives=[objective])
    (goal,) = goals_of(store.campaign, store.facts)
    assert (goal.higher_is_better, goal.searched_higher_is_better) == (False, True)
    assert (goal.metric, goal.report, goal.weight) == ("gold_loglikelihood", "ppl", 2.0)


def test_trials_given_up_early_are_counted(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store(costs=[{"cost": "parameters", "weight": 0.5}], normalize="best_expert")
    lab.fill(store, until="search")
    lab.tell(store, 4, lab.outcome("trial 0", "search"), estimates=[0.1])
    summary = summarise(store, store.trials())
    assert (summary.complete, summary.pruned, summary.failed, summary.done) == (3, 1, 1, 5)
    assert (summary.normalize, summary.costs) == ("best_expert", {"parameters": 0.5})
    assert all(goal.normalized for goal in summary.goals)


def test_unknown_facts_are_not_invented(make_store: Callable[..., Store]) -> None:
    store = make_store(facts={})
    summary = summarise(store, store.trials())
    assert (summary.versions, summary.prompts) == ({}, {})
    assert all(goal.higher_is_better for goal in summary.goals)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("/a/results/models/base", "../models/base"),
        ("/a/results/one/base", "base"),
        ("org/model", "org/model"),
        ("zoo:base", "zoo:base"),
    ],
)
def test_a_folder_is_named_as_seen_from_the_results_folder(name: str, shown: str) -> None:
    assert portable(name, "/a/results/one") == shown
