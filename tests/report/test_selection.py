from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from evomerge.report.selection import compared_baselines, in_lambda_grid, selection_value, tuned
from evomerge.space import Baseline
from evomerge.store import Store
from evomerge.trial import Outcome

NAMES = ("base", "extraction", "uniform average", "task arithmetic λ=0.4", "task arithmetic λ=0.8")


def test_finalists_rank_by_the_weighted_mean(store: Store, lab: SimpleNamespace) -> None:
    better = lab.outcome("trial 1", "select")
    worse = lab.outcome("trial 0", "select")
    assert selection_value(store, better) > selection_value(store, worse)
    mean = sum(s.values["exact_match"].value for s in better.scores.values()) / 3
    assert selection_value(store, better) == pytest.approx(mean)


def test_less_is_better_where_the_task_says_so(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    facts = {"higher_is_better": {"t": {"ppl": False}}}
    store = make_store(facts=facts, objectives=[{"task": "t", "metric": "ppl"}])
    low = Outcome({"t": lab.task_scores([2.0, 3.0], "ppl")})
    high = Outcome({"t": lab.task_scores([7.0, 9.0], "ppl")})
    assert selection_value(store, low) > selection_value(store, high)


def test_what_misses_a_metric_cannot_win(store: Store) -> None:
    assert selection_value(store, Outcome()) == -math.inf


def test_the_tuned_lambda_is_the_best_on_select(store: Store) -> None:
    assert tuned(store, NAMES) == "task arithmetic λ=0.4"
    assert tuned(store, ["base", "ties"]) is None


def test_of_the_grid_only_the_tuned_one_is_read_on_holdout(
    store: Store, lab: SimpleNamespace
) -> None:
    baselines = [Baseline(name, "baseline", lab.recipe()) for name in NAMES]
    kept = [one.name for one in compared_baselines(store, baselines)]
    assert kept == ["base", "extraction", "uniform average", "task arithmetic λ=0.4"]


def test_the_grid_is_known_by_its_names() -> None:
    assert in_lambda_grid("task arithmetic λ=0.4")
    assert not in_lambda_grid("uniform average")
