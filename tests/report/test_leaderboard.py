from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import SPLITS, Failure, FailureKind, Outcome
from evomerge.objective import Objectives
from evomerge.report.leaderboard import Leaderboard, leaderboard
from evomerge.store import Store


def test_the_rows_of_a_finished_campaign(board: Leaderboard) -> None:
    assert [(row.kind, row.name) for row in board.rows] == [
        ("base", "base"),
        ("expert", "extraction"),
        ("expert", "tools"),
        ("baseline", "task arithmetic λ=0.4 (tuned)"),
        ("baseline", "task arithmetic λ=0.8"),
        ("baseline", "ties"),
        ("baseline", "uniform average"),
        ("finalist", "trial 2"),
        ("winner", "trial 1"),
    ]
    assert board.latest_split() == "holdout"
    assert [row.name for row in board.winners] == ["trial 1"]


def test_a_trial_is_joined_over_its_splits(board: Leaderboard) -> None:
    winner = board.row("trial 1")
    assert list(winner.splits) == ["search", "select", "holdout"]
    assert winner.trial == 1
    assert winner.cost.items == 3 * (24 + 24 + 80)
    assert winner.cost.merge_seconds == 1.5


def test_splits_that_were_not_scored_are_absent(board: Leaderboard) -> None:
    assert list(board.row("trial 2").splits) == ["search", "select"]
    assert board.row("trial 2").objective("holdout") is None
    with pytest.raises(KeyError):
        board.row("trial 0")


def test_a_running_campaign_shows_its_leading_trials(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store()
    lab.fill(store, until="search")
    board = leaderboard(store)
    assert board.latest_split() == "search"
    finalists = [row.name for row in board.rows if row.kind == "finalist"]
    assert finalists == ["trial 1", "trial 2"]
    assert board.winners == ()
    assert board.tests.contrasts == ()
    assert "(tuned)" not in " ".join(row.name for row in board.rows)


def test_an_empty_campaign_has_no_rows(make_store: Callable[..., Store]) -> None:
    board = leaderboard(make_store())
    assert board.rows == ()
    assert board.latest_split() == "search"


def test_a_failed_row_keeps_its_reason(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store()
    failed = Outcome(failure=Failure(FailureKind.MERGE, "opposed inputs"))
    lab.record(store, "ties", "search", "baseline", failed)
    (row,) = leaderboard(store).rows
    assert row.splits["search"].failure == "merge: opposed inputs"
    assert row.objective("search") is None


def test_finalists_stand_best_first(make_store: Callable[..., Store], lab: SimpleNamespace) -> None:
    store = make_store()
    lab.fill(store, until="search")
    for number in (0, 2, 1):
        lab.record(store, f"trial {number}", "select", "finalist")
    assert [r.name for r in leaderboard(store).rows if r.kind == "finalist"] == [
        "trial 1",
        "trial 2",
        "trial 0",
    ]


def test_a_pareto_campaign_marks_its_front(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store(mode="pareto")
    for number, rates in enumerate([(1.0, 0.0, 1.0), (0.0, 1.0, 1.0), (0.0, 0.0, 1.0)]):
        found = lab.outcome(f"trial {number}", "select", rates)
        lab.record(store, f"trial {number}", "select", "finalist", found)
    fronts = {row.name: row.front for row in leaderboard(store).rows}
    assert fronts == {"trial 0": True, "trial 1": True, "trial 2": False}


def test_of_a_front_no_merge_is_beaten_and_none_misses_a_constraint(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    goals = [{"task": "a", "metric": "acc"}, {"task": "b", "metric": "ppl"}]
    facts = {"higher_is_better": {"a": {"acc": True}, "b": {"ppl": False}}}
    keep = [{"task": "a", "at_least": 0.5, "of": "base"}]
    costs = [{"cost": "generated_tokens"}]
    store = make_store(facts=facts, objectives=goals, mode="pareto", keep=keep, costs=costs)

    def record(
        name: str, kind: str, a: float, b: float, split: str = "select", tokens: int = 10
    ) -> None:
        scores = {"a": lab.task_scores([a, a], "acc"), "b": lab.task_scores([b, b], "ppl")}
        cost = Cost(items=2, generated_tokens=tokens)
        lab.record(store, name, split, kind, Outcome(scores, cost=cost))

    record("base", "base", 0.8, 4.0)
    record("tools", "expert", 1.0, 1.0)
    record("trial 0", "finalist", 0.9, 5.0)
    record("trial 1", "finalist", 0.5, 2.0)
    record("ties", "baseline", 0.5, 3.0)
    record("trial 2", "finalist", 0.9, 5.0)
    record("trial 3", "finalist", 0.3, 1.0)
    record("trial 4", "finalist", 0.5, 4.0, tokens=5)
    record("trial 5", "finalist", 1.0, 1.0, split="search")
    assert {row.name: row.front for row in leaderboard(store).rows} == {
        "base": None,
        "tools": None,
        "trial 0": True,
        "trial 1": True,
        "ties": False,
        "trial 2": True,
        "trial 3": False,  # best in b, but it misses the constraint
        "trial 4": True,  # beaten in both, and cheaper
        "trial 5": None,
    }


def test_the_search_items_serve_until_something_is_selected(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store(mode="pareto")
    for number, rates in enumerate([(1.0, 1.0, 1.0), (0.0, 0.0, 1.0)]):
        lab.tell(store, number, lab.outcome(f"trial {number}", "search", rates), None)
    assert [row.front for row in leaderboard(store).rows] == [True, False]
    assert leaderboard(make_store(mode="pareto")).rows == ()


def test_finalists_that_meet_the_constraints_stand_first(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store(keep=[{"task": "zoo_tools", "at_least": 0.9}])
    lab.record(store, "tools", "select", "expert", lab.outcome("tools", "select", (0.0, 1.0, 0.0)))
    for number, rates in enumerate([(1.0, 0.5, 1.0), (1.0, 0.0, 1.0), (0.2, 1.0, 0.2)]):
        found = lab.outcome(f"trial {number}", "select", rates)
        lab.record(store, f"trial {number}", "select", "finalist", found)
    names = [row.name for row in leaderboard(store).rows if row.kind == "finalist"]
    assert names == ["trial 2", "trial 0", "trial 1"]


def test_its_means_are_those_that_choose(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    """The rows' means and nets are what the aims ranks by."""
    settings = {"normalize": "best_expert", "costs": [{"cost": "generated_tokens"}]}
    store = make_store(**settings)
    lab.fill(store)
    for split in SPLITS:
        aims = Objectives.of(store.campaign, store.facts, store.evaluations(), split)
        for row in leaderboard(store).rows:
            scores = row.splits.get(split)
            if scores is not None:
                assert scores.outcome is not None
                assert row.objective(split) == aims.quality(scores.outcome)
                assert scores.net == aims.values(scores.outcome)[0]


def test_pruned_trials_stand_behind_those_scored_in_full(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store(search={"trials": 9, "finalists": 3})
    part = Outcome({task: lab.task_scores([1.0]) for task in lab.tasks})
    lab.tell(store, 0, part, estimates=[0.9])
    for number, rate in ((1, 0.2), (2, 0.6)):
        lab.tell(store, number, lab.outcome("trial 0", "search", (rate,) * 3))
    board = leaderboard(store)
    assert [row.trial for row in board.rows] == [2, 1, 0]
    assert [row.splits["search"].estimated for row in board.rows] == [False, False, True]


def test_any_trial_can_have_a_row(store: Store, board: Leaderboard) -> None:
    wider = leaderboard(store, 0)
    row = wider.row("trial 0")
    assert (row.trial, row.kind, list(row.splits)) == (0, "finalist", ["search"])
    assert len(wider.rows) == len(board.rows) + 1
    assert leaderboard(store, 1) == board
    with pytest.raises(KeyError):
        leaderboard(store, 99)


def test_two_readings_are_equal(store: Store) -> None:
    assert leaderboard(store) == leaderboard(store)


NAMES = ("ties", "trial 1", "uniform average", "winner", "Ties", "task arithmetic λ=0.4", "a:b")


def test_experts_may_have_any_name(make_store: Callable[..., Store], lab: SimpleNamespace) -> None:
    """The names of rows of other kinds, names that differ by case only, or a key's own colon."""
    store = make_store(keep=[{"task": "zoo_tools", "at_least": 0.5}])
    for split in SPLITS:
        for place, name in enumerate(NAMES):
            rates = (0.1 * place, 0.9, 0.1)
            lab.record(store, name, split, "expert", lab.outcome(name, split, rates))
    lab.fill(store)
    board = leaderboard(store)
    experts = {row.key: row for row in board.rows if row.kind == "expert"}
    assert set(experts) == {f"expert:{name}" for name in ("extraction", "tools", *NAMES)}
    assert {row.kind: row.name for row in board.rows}["winner"] == "trial 1"
    assert len({row.name for row in board.rows}) == len({row.key for row in board.rows})
    assert board.row("baseline:ties").name == "ties (baseline)"
    assert board.row("expert:ties").name == "ties (expert)"
    assert board.row("expert:winner").name == "winner"
    assert board.row("trial 1").kind == "winner"
    for row in experts.values():
        assert list(row.splits) == list(SPLITS)
    (expert, _) = board.tests.contrasts
    best = max(experts.values(), key=lambda row: row.objective("holdout") or 0.0)
    assert expert.against_key == best.key
    assert expert.row_key == "trial:1"
    (constraint,) = board.constraints
    assert set(constraint.limits) == set(SPLITS)
    assert json.loads(json.dumps(board.to_json(), allow_nan=False))


def test_the_earlier_winner_is_a_finalist_with_its_holdout_scores(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store()
    lab.fill(store)
    lab.record(store, "trial 2", "holdout", "winner")
    board = leaderboard(store)
    assert [(row.name, row.kind) for row in board.rows[-2:]] == [
        ("trial 1", "finalist"),
        ("trial 2", "winner"),
    ]
    assert list(board.row("trial 1").splits) == list(SPLITS)
    assert board.campaign.holdout_readings == 2
    assert board.campaign.chosen == "the best of 2 finalists"
    assert {one.row for one in board.tests.contrasts} == {"trial 2"}
