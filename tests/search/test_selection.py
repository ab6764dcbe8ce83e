from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import Entry, Estimate, Failure, FailureKind, Outcome
from evomerge.search.selection import choose_winner, compared_baselines
from evomerge.space import Baseline
from evomerge.store import Store

NAMES = ("uniform average", "task arithmetic λ=0.4", "task arithmetic λ=0.8")
KEYS = ["base", "expert:extraction", *(f"baseline:{name}" for name in NAMES)]


def finalists(store: Store, lab: SimpleNamespace, *outcomes: Outcome) -> list[Entry]:
    """Record outcomes on `select` as those of trial 0, 1, 2, …"""
    found = []
    for number, outcome in enumerate(outcomes):
        lab.record(store, f"trial {number}", "select", "finalist", outcome)
        found.append(Entry(f"trial {number}", lab.recipe(), number))
    return found


def number(found: tuple[Entry, str] | None) -> int | None:
    return None if found is None else found[0].number


def test_the_best_weighted_mean_wins_the_earlier_of_equals(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store()
    low, high = (lab.outcome("trial 0", "select", (rate,) * 3) for rate in (0.2, 0.9))
    assert number(choose_winner(store, finalists(store, lab, low, high, high))) == 1


def test_less_is_better_where_the_task_says_so(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    facts = {"higher_is_better": {"t": {"ppl": False}}}
    store = make_store(facts=facts, objectives=[{"task": "t", "metric": "ppl"}])
    high, low = (Outcome({"t": lab.task_scores(v, "ppl")}) for v in ([7.0, 9.0], [2.0, 3.0]))
    assert number(choose_winner(store, finalists(store, lab, high, low))) == 1


def test_what_fails_or_misses_a_metric_cannot_win(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store()
    failed = Outcome(failure=Failure(FailureKind.MERGE, "no"))
    poor = lab.outcome("trial 0", "select", (0.0,) * 3)
    assert number(choose_winner(store, finalists(store, lab, failed, Outcome(), poor))) == 2
    store = make_store()
    assert choose_winner(store, finalists(store, lab, failed, Outcome())) is None
    assert choose_winner(store, [Entry("trial 9", lab.recipe(), 9)]) is None


def test_constraints_come_first_then_how_nearly_they_are_met(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    far, near, kept = (
        lab.outcome("trial 0", "select", rates)
        for rates in ((1.0, 0.0, 1.0), (1.0, 0.6, 1.0), (0.1, 1.0, 0.1))
    )
    for rows, expected in (((far, near, kept), 2), ((far, near), 1)):
        store = make_store(keep=[{"task": "zoo_tools", "at_least": 0.98}])
        tools = lab.outcome("tools", "select", (0.0, 1.0, 0.0))
        lab.record(store, "tools", "select", "expert", tools)
        assert number(choose_winner(store, finalists(store, lab, *rows))) == expected


def test_an_expert_that_joined_later_sets_no_limit(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    """Of two that keep what the first experts have, the better mean; none has what the third one has."""
    low, high = (lab.outcome("trial 0", "select", (rate, 0.6, rate)) for rate in (0.1, 0.9))
    store = make_store(keep=[{"task": "zoo_tools", "at_least": 0.98, "of": "best_expert"}])
    for name, rate in (("tools", 0.5), ("joined", 1.0)):
        lab.record(store, name, "select", "expert", lab.outcome(name, "select", (0.0, rate, 0.0)))
    found = choose_winner(store, finalists(store, lab, low, high))
    assert number(found) == 1
    assert found is not None
    assert "none meets every constraint" not in found[1]


def test_values_are_shares_of_the_best_experts(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    """By plain means the second is better; the first does all that anybody can do at a hard task."""
    objectives = [{"task": task, "metric": "exact_match"} for task in ("easy", "hard")]
    for normalize, expected in (("none", 1), ("best_expert", 0)):
        store = make_store(objectives=objectives, normalize=normalize)
        rows = [
            Outcome({"easy": lab.task_scores([1.0] * 10), "hard": lab.task_scores(hard)})
            for hard in ([1.0] + [0.0] * 9, [0.0] * 10)
        ]
        lab.record(store, "tools", "select", "expert", rows[0])
        first = Outcome(
            {"easy": lab.task_scores([1.0] * 7 + [0.0] * 3), "hard": rows[0].scores["hard"]}
        )
        assert number(choose_winner(store, finalists(store, lab, first, rows[1]))) == expected


def test_costs_come_off_the_mean(make_store: Callable[..., Store], lab: SimpleNamespace) -> None:
    store = make_store(costs=[{"cost": "generated_tokens", "weight": 0.2}])
    scores = lab.outcome("base", "select", (0.5,) * 3).scores
    lab.record(
        store, "base", "select", "base", Outcome(scores, cost=Cost(items=10, generated_tokens=50))
    )
    better = lab.outcome("trial 0", "select", (0.6,) * 3).scores
    long = Outcome(better, cost=Cost(items=10, generated_tokens=500))
    short = Outcome(scores, cost=Cost(items=10, generated_tokens=40))
    assert number(choose_winner(store, finalists(store, lab, long, short))) == 1


def test_of_a_front_no_other_finalist_beats_the_winner(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    """Equal means: the cheaper stands on the front, the earlier does not."""
    store = make_store(mode="pareto", costs=[{"cost": "generated_tokens"}])
    scores = lab.outcome("base", "select", (0.5,) * 3).scores
    dear, cheap = (
        Outcome(scores, cost=Cost(items=10, generated_tokens=tokens)) for tokens in (90, 30)
    )
    lab.record(store, "base", "select", "base", dear)
    assert number(choose_winner(store, finalists(store, lab, dear, cheap))) == 1


def test_of_the_grid_only_the_tuned_one_is_read_on_holdout(
    store: Store, lab: SimpleNamespace
) -> None:
    baselines = [
        Baseline("base", "base", lab.recipe()),
        Baseline("task arithmetic λ=0.8", "expert", lab.recipe()),
        *(Baseline(name, "baseline", lab.recipe()) for name in NAMES),
    ]
    kept = [one.key for one in compared_baselines(store, baselines)]
    assert kept == ["base", "expert:task arithmetic λ=0.8", *KEYS[2:4]]


def test_whatever_was_scored_on_select_counts_and_of_equals_the_present_winner(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store()
    low, high = (lab.outcome("trial 0", "select", (rate,) * 3) for rate in (0.2, 0.9))
    first = finalists(store, lab, low, high, high)
    assert number(choose_winner(store, [first[0]])) == 1
    store.choose(first[2], "an earlier run")
    assert number(choose_winner(store, first)) == 2


def test_the_copy_of_a_naive_merge_has_its_scores(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    for rate, expected in ((0.9, 7), (0.1, 0)):
        store = make_store()
        naive = lab.outcome("ties", "select", (rate,) * 3)
        lab.record(store, "ties", "select", "baseline", naive)
        found = finalists(store, lab, lab.outcome("trial 0", "select", (0.5,) * 3))
        copies = {"baseline:ties": Entry("trial 7", lab.recipe(), 7)}
        choice = choose_winner(store, found, copies)
        assert number(choice) == expected
        assert choice is not None
        assert choice[1].endswith("the same model as ties") is (expected == 7)


def likely(
    lab: SimpleNamespace, rate: float, likelihood: float | None, tools: float | None = None
) -> Outcome:
    """Return scores of three tasks, beside them the log-likelihood of the gold answers."""
    outcome = lab.outcome("trial 0", "select", (rate, rate if tools is None else tools, rate))
    if likelihood is None:
        return outcome
    scores = {
        task: replace(one, values={**one.values, "gold_loglikelihood": Estimate(likelihood)})
        for task, one in outcome.scores.items()
    }
    return replace(outcome, scores=scores)


def test_a_descent_stops_where_the_gold_answers_are_likeliest(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    paths = {0: (0, 1, 2), 1: (0, 1, 2), 2: (0, 1, 2)}
    rows = [likely(lab, 0.7, -0.5), likely(lab, 0.6, -0.2), likely(lab, 0.8, -0.9)]
    other = likely(lab, 0.5, -0.1)
    for last, expected in ((0.5, 1), (0.9, 3)):  # the last trial is of no path
        store = make_store()
        entries = finalists(store, lab, *rows, likely(lab, last, -0.1))
        found = choose_winner(store, entries, None, lambda trial: paths.get(trial, ()))
        assert number(found) == expected
    store = make_store()
    unknown = finalists(store, lab, *rows[:2], likely(lab, 0.8, None), other)
    assert number(choose_winner(store, unknown, None, lambda trial: paths.get(trial, ()))) == 2
    store = make_store()
    entries = finalists(store, lab, *rows)
    assert number(choose_winner(store, entries)) == 2


def test_a_descent_stops_where_the_constraints_are_met(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store(keep=[{"task": "zoo_tools", "at_least": 0.98}])
    tools = lab.outcome("tools", "select", (0.0, 1.0, 0.0))
    lab.record(store, "tools", "select", "expert", tools)
    entries = finalists(store, lab, likely(lab, 0.7, -0.5, 1.0), likely(lab, 0.6, -0.2, 0.6))
    assert number(choose_winner(store, entries, None, lambda trial: (0, 1))) == 0
