from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from evomerge.candidate.trial import Failure, FailureKind, Outcome
from evomerge.report.constraints import Condition, condition_notes, conditions_of, misses
from evomerge.report.leaderboard import Leaderboard, leaderboard
from evomerge.report.rows import Row, SplitScores, Value
from evomerge.store import Store

KEEP = {"keep": [{"task": "zoo_tools", "at_least": 0.98}]}
CONDITION = Condition("t", "acc", 0.9, "best_expert", {"select": 0.45, "holdout": 0.36})


def row(lab: SimpleNamespace, kind: str, select: float, holdout: float) -> Row:
    splits = {
        split: SplitScores(
            None, None, {"t": {"acc": Value(value)}}, violations=((needed - value) / needed,)
        )
        for split, value, needed in (("select", select, 0.45), ("holdout", holdout, 0.36))
    }
    return Row("trial 1", kind, 1, lab.recipe(), splits)  # type: ignore[arg-type]


def test_limits_are_taken_from_the_best_expert_of_each_split(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store(**KEEP)
    lab.fill(store)
    (condition,) = leaderboard(store).conditions
    assert (condition.task, condition.metric, condition.at_least) == (
        "zoo_tools",
        "exact_match",
        0.98,
    )
    for split, needed in condition.limits.items():
        best = store.evaluation("expert:tools", split)
        assert best is not None
        assert needed == pytest.approx(0.98 * best.scores["zoo_tools"].values["exact_match"].value)
    assert list(condition.limits) == ["search", "select", "holdout"]


def test_what_was_not_scored_has_no_limit(make_store: Callable[..., Store]) -> None:
    store = make_store(**KEEP)
    (condition,) = conditions_of(store.campaign, {})
    assert condition.limits == {}
    (note,) = condition_notes([condition], [])
    assert note == "keep zoo_tools: at least 0.98 of best expert (not scored yet)"


def test_notes_say_what_is_asked_and_what_the_winner_has(lab: SimpleNamespace) -> None:
    (note,) = condition_notes([CONDITION], [row(lab, "winner", 0.5, 0.3)])
    assert note == (
        "keep t: at least 0.9 of best expert (select 0.450, trial 1 has 0.500: met; "
        "holdout 0.360, trial 1 has 0.300: missed)"
    )


def test_what_nobody_can_tell_is_not_met_and_said_so(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store(**KEEP)
    lab.fill(store)
    lost = Outcome(failure=Failure(FailureKind.OUT_OF_MEMORY, "none left"))
    lab.record(store, "tools", "holdout", "expert", lost)
    board = leaderboard(store)
    (winner,) = board.winners
    assert winner.splits["holdout"].violations == (math.inf,)
    assert misses(winner, "holdout")
    note = condition_notes(board.conditions, board.rows)[0]
    assert note.endswith("; holdout unknown, as best expert was not scored there: not met)")
    assert Leaderboard.from_json(board.to_json()) == board


def test_a_winner_that_misses_a_condition_is_named(lab: SimpleNamespace) -> None:
    notes = condition_notes([CONDITION], [row(lab, "winner", 0.4, 0.4)])
    assert notes[-1].startswith("no finalist meets every condition on the select items")


def test_only_merges_can_miss_a_condition(lab: SimpleNamespace) -> None:
    assert misses(row(lab, "finalist", 0.4, 0.4), "select")
    assert not misses(row(lab, "finalist", 0.4, 0.4), "holdout")
    assert not misses(row(lab, "finalist", 0.4, 0.4), "search")
    assert not misses(row(lab, "expert", 0.4, 0.4), "select")


def test_it_comes_back_from_json() -> None:
    assert Condition(**CONDITION.to_json()) == CONDITION
