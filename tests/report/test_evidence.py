from __future__ import annotations

from dataclasses import replace

import pytest

from evomerge.report.evidence import Evidence, best, weigh
from evomerge.report.leaderboard import Leaderboard
from evomerge.report.statistics import holm


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
    (generalisation_gap,) = weigh(
        [replace(winner, splits=splits)], board.aims["holdout"]
    ).generalisation_gap
    assert generalisation_gap.metric == "searched"
    assert weigh([replace(winner, splits={})], board.aims["holdout"]).generalisation_gap == ()


def test_without_a_winner_nothing_is_claimed(board: Leaderboard) -> None:
    rows = [row for row in board.rows if row.kind != "winner"]
    assert weigh(rows, board.aims["holdout"]) == Evidence()


def test_the_best_row_obeys_the_direction(board: Leaderboard) -> None:
    rows = [row for row in board.rows if row.kind == "baseline"]
    found = best(rows, "holdout")
    assert found is not None
    assert found.name == "task arithmetic λ=0.4 (tuned)"
    assert best([], "holdout") is None


def test_tests_are_written_flat(board: Leaderboard) -> None:
    tests, data = board.tests, board.tests.to_json()
    assert data["paired"][0]["p"] == tests.contrasts[0].test.p
    gap = tests.generalisation_gap[0]
    assert data["generalisation_gap"][0]["generalisation_gap"] == gap.difference
