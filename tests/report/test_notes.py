from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from evomerge.candidate.trial import Failure, FailureKind, Outcome
from evomerge.report.formats import render
from evomerge.report.leaderboard import leaderboard
from evomerge.report.notes import (
    _meaning_notes,
    constraint_notes,
    naive_notes,
    readings_notes,
    zero_notes,
)
from evomerge.report.rows import Row
from evomerge.report.scores import SplitScores, Value
from evomerge.report.summary import Constraint, Goal, constraints_of
from evomerge.store import Store

UP = [Goal("t", "nll", "acc")]
DOWN = [Goal("t", "ppl", "ppl", higher_is_better=False, searched_higher_is_better=False)]


def row(lab: SimpleNamespace, name: str, kind: Any, value: float, **more: Any) -> Row:
    tasks = {"t": {"acc": Value(value), "ppl": Value(value), "nll": Value(value)}}
    scores = SplitScores(Value(value), None, tasks, **{"quality": value, **more})
    return Row(name, kind, None, lab.recipe(), {"holdout": scores, "search": scores}, key=name)


@pytest.mark.parametrize(
    ("sign", "naive", "winner"), [(1, 0.7, 0.6), (1, 0.6, 0.6), (-1, 5.0, 6.0)]
)
def test_a_winner_below_a_naive_merge_is_said_to_be(
    lab: SimpleNamespace, sign: int, naive: float, winner: float
) -> None:
    rows = [
        row(lab, "tools", "expert", 0.9, quality=9.0),
        row(lab, "average", "baseline", naive, quality=sign * naive),
        row(lab, "trial 3", "winner", winner, quality=sign * winner),
    ]
    expected = (
        f"trial 3, the winner, is below a naive merge on the holdout items: average has {naive:.3f}, "
        f"trial 3 {winner:.3f}"
    )
    assert naive_notes(rows, "holdout") == [expected] * (naive != winner)


def test_constraints_and_costs_count_as_they_choose(lab: SimpleNamespace) -> None:
    rows = [
        row(lab, "average", "baseline", 0.9, violations=(0.1,)),
        row(lab, "trial 3", "winner", 0.6, violations=(0.0,)),
    ]
    assert naive_notes(rows, "holdout") == []
    rows[0] = row(lab, "average", "baseline", 0.5, net=0.4, violations=(0.0,))
    rows[1] = row(lab, "trial 3", "winner", 0.6, net=0.3, violations=(0.0,))
    (note,) = naive_notes(rows, "holdout")
    assert note.endswith("average has 0.400, trial 3 0.300")


def test_a_task_that_is_zero_for_every_model_is_named(lab: SimpleNamespace) -> None:
    rows = [row(lab, name, "expert", 0.0) for name in ("one", "two")]
    (note,) = zero_notes(rows, UP, "holdout")
    assert note.startswith("t: every model has 0 of acc on the holdout items")
    assert " of nll on the search items" in zero_notes(rows, UP, "search")[0]
    assert zero_notes(rows, DOWN, "holdout") == []  # nothing could be better
    assert zero_notes([*rows, row(lab, "three", "expert", 0.1)], UP, "holdout") == []
    assert zero_notes(rows[:1], UP, "holdout") == []


def test_more_than_one_reading_of_holdout_is_said(
    make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    assert readings_notes(0) == []
    assert readings_notes(1) == []
    store = make_store()
    lab.fill(store)
    assert "were read" not in render(leaderboard(store), "markdown", "holdout")
    lab.record(store, "trial 2", "holdout", "winner")
    board = leaderboard(store)
    assert "the holdout items were read 2 times" in render(board, "markdown", "holdout")


KEEP = {"keep": [{"task": "zoo_tools", "at_least": 0.98}]}
CONSTRAINT = Constraint("t", "acc", 0.9, "best_expert", {"select": 0.45, "holdout": 0.36})


def merge(lab: SimpleNamespace, kind: str, select: float, holdout: float) -> Row:
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
    (constraint,) = leaderboard(store).constraints
    assert (constraint.task, constraint.metric, constraint.at_least) == (
        "zoo_tools",
        "exact_match",
        0.98,
    )
    for split, needed in constraint.limits.items():
        best = store.evaluation("expert:tools", split)
        assert best is not None
        assert needed == pytest.approx(0.98 * best.scores["zoo_tools"].values["exact_match"].value)
    assert list(constraint.limits) == ["search", "select", "holdout"]


def test_what_was_not_scored_has_no_limit(make_store: Callable[..., Store]) -> None:
    store = make_store(**KEEP)
    (constraint,) = constraints_of(store.campaign, {})
    assert constraint.limits == {}
    (note,) = constraint_notes([constraint], [])
    assert note == "keep zoo_tools: at least 0.98 of best expert (not scored yet)"


def test_notes_say_what_is_asked_and_what_the_winner_has(lab: SimpleNamespace) -> None:
    (note,) = constraint_notes([CONSTRAINT], [merge(lab, "winner", 0.5, 0.3)])
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
    assert winner.misses("holdout")
    note = constraint_notes(board.constraints, board.rows)[0]
    assert note.endswith("; holdout unknown, as best expert was not scored there: not met)")
    assert render(board, "json")  # infinity has no JSON


def test_a_winner_that_misses_a_constraint_is_named(lab: SimpleNamespace) -> None:
    notes = constraint_notes([CONSTRAINT], [merge(lab, "winner", 0.4, 0.4)])
    assert notes[-1].startswith("no finalist meets every constraint on the select items")


def test_only_merges_can_miss_a_constraint(lab: SimpleNamespace) -> None:
    assert merge(lab, "finalist", 0.4, 0.4).misses("select")
    assert not merge(lab, "finalist", 0.4, 0.4).misses("holdout")
    assert not merge(lab, "finalist", 0.4, 0.4).misses("search")
    assert not merge(lab, "expert", 0.4, 0.4).misses("select")


@pytest.mark.parametrize(
    ("goals", "normalize", "mean"),
    [
        (UP, "none", "the mean less"),
        ([*UP, *DOWN], "none", "the mean less"),
        (DOWN, "none", "-1 × the mean, less"),
        (DOWN, "best_expert", "the mean less"),
    ],
)
def test_what_is_net_is_said_in_the_direction_in_which_it_is_shown(
    goals: list[Goal], normalize: str, mean: str
) -> None:
    campaign: Any = SimpleNamespace(
        precision="", goals=goals, normalize=normalize, costs={"parameters": 0.1}, mode="mean"
    )
    *_, note = _meaning_notes(campaign)
    assert note == f"net: {mean} 0.1 × parameters; costs are relative to the base's"
