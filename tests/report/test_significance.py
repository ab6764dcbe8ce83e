from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from evomerge.candidate.trial import Outcome
from evomerge.report import Leaderboard
from evomerge.report.rows import Goal
from evomerge.report.significance import Evidence, best, paired, weigh
from evomerge.report.statistics import holm

GOALS = (Goal("a", "acc", "acc"), Goal("b", "acc", "acc"))


def test_the_winner_is_tested_against_the_best_expert_and_baseline(board: Leaderboard) -> None:
    expert, baseline = board.tests.contrasts
    assert (expert.part, expert.row) == ("best expert", "trial 1")
    assert expert.against in ("extraction", "tools")
    assert (baseline.part, baseline.against) == ("best baseline", "task arithmetic λ=0.4 (tuned)")
    winner, opponent = board.row("trial 1"), board.row(expert.against)
    gap = (winner.objective("holdout") or 0) - (opponent.objective("holdout") or 0)
    assert expert.test.difference == pytest.approx(gap)
    assert expert.test.n == 240
    assert expert.test.p < 0.01
    assert (expert.p_corrected, baseline.p_corrected) == holm([expert.test.p, baseline.test.p])


def test_generalisation_gap_is_search_minus_holdout(board: Leaderboard) -> None:
    (generalisation_gap,) = board.tests.generalisation_gap
    winner = board.row("trial 1")
    assert generalisation_gap.metric == "reported"
    assert generalisation_gap.search == winner.objective("search")
    assert generalisation_gap.difference == pytest.approx(
        (winner.objective("search") or 0) - (winner.objective("holdout") or 0)
    )


def test_generalisation_gap_passes_by_what_picked_the_winner(board: Leaderboard) -> None:
    assert board.tests.generalisation_gap[0].select == board.row("trial 1").objective("select")


def test_generalisation_gap_of_the_searched_metric_where_search_saw_no_other(
    board: Leaderboard,
) -> None:
    winner = board.row("trial 1")
    splits = {
        "search": replace(
            winner.splits["search"], objective=None, searched=winner.splits["search"].objective
        ),
        "holdout": replace(winner.splits["holdout"], searched=winner.splits["holdout"].objective),
    }
    (generalisation_gap,) = weigh([replace(winner, splits=splits)], GOALS).generalisation_gap
    assert generalisation_gap.metric == "searched"
    assert weigh([replace(winner, splits={})], GOALS).generalisation_gap == ()


def test_without_a_winner_nothing_is_claimed(board: Leaderboard) -> None:
    rows = [row for row in board.rows if row.kind != "winner"]
    assert weigh(rows, GOALS) == Evidence()


def test_items_are_paired_by_id_not_by_place(lab: SimpleNamespace) -> None:
    items = [f"i{n}" for n in range(30)]
    values = np.random.default_rng(0).integers(0, 2, 30).astype(float)
    shuffled = np.random.default_rng(1).permutation(30)
    first = Outcome({t: lab.task_scores(values.tolist(), "acc", items=items) for t in "ab"})
    second = Outcome(
        {
            t: lab.task_scores(values[shuffled].tolist(), "acc", items=[items[n] for n in shuffled])
            for t in "ab"
        }
    )
    test = paired(first, second, GOALS)
    assert test is not None
    assert (test.difference, test.p) == (0.0, 1.0)


def test_unlike_items_are_not_paired(lab: SimpleNamespace) -> None:
    first = Outcome({t: lab.task_scores([1.0, 0.0], "acc") for t in "ab"})
    other = Outcome({t: lab.task_scores([1.0, 0.0], "acc", items=["x", "y"]) for t in "ab"})
    assert paired(first, other, GOALS) is None
    assert paired(first, Outcome({"a": first.scores["a"]}), GOALS) is None


def test_one_binary_task_is_mcnemar(lab: SimpleNamespace) -> None:
    first = Outcome({"a": lab.task_scores([1.0] * 9 + [0.0], "acc")})
    second = Outcome({"a": lab.task_scores([0.0] * 10, "acc")})
    test = paired(first, second, GOALS[:1])
    assert test is not None
    assert test.method == "exact McNemar"
    assert test.p == pytest.approx(2 / 2**9)


def test_shares_of_the_best_expert_are_paired_as_they_count(lab: SimpleNamespace) -> None:
    """One item of a task of which the best expert does half weighs as two of one that it does all of."""
    goals = [
        Goal(t, "acc", "acc", normalized=True, best=best, reference=reference)
        for t, best, reference in (
            ("a", 0.5, lab.task_scores([1.0, 0.0], "acc")),
            ("b", 1.0, lab.task_scores([1.0, 1.0], "acc")),
        )
    ]
    first = Outcome({t: lab.task_scores([1.0, 1.0], "acc") for t in "ab"})
    second = Outcome({t: lab.task_scores([0.0, 1.0], "acc") for t in "ab"})
    test = paired(first, second, goals)
    assert test is not None
    assert test.difference == pytest.approx((0.5 / 0.5 + 0.5) / 2)
    losses = [Goal("a", "acc", "acc", 1.0, False, False, normalized=True, best=0.5)]
    assert paired(first, second, losses) is None  # best / value is no mean over items


def test_the_best_row_obeys_the_direction(board: Leaderboard) -> None:
    rows = [row for row in board.rows if row.kind == "baseline"]
    up = best(rows, [Goal("a", "acc", "acc")], "holdout")
    down = best(rows, [Goal("a", "ppl", "ppl", higher_is_better=False)], "holdout")
    assert up is not None
    assert down is not None
    assert up.name == "task arithmetic λ=0.4 (tuned)"
    assert (down.objective("holdout") or 0) < (up.objective("holdout") or 0)
    assert best([], GOALS, "holdout") is None


def test_tests_come_back_from_json(board: Leaderboard) -> None:
    tests = board.tests
    data = tests.to_json()
    assert Evidence.from_json(data) == tests
    assert data["paired"][0]["p"] == tests.contrasts[0].test.p
    assert (
        data["generalisation_gap"][0]["generalisation_gap"]
        == tests.generalisation_gap[0].difference
    )
