from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest

from evomerge.errors import ResultsError
from evomerge.report import Leaderboard, comparison, leaderboard
from evomerge.report.rows import split_scores
from evomerge.report.significance import paired
from evomerge.report.statistics import holm
from evomerge.store import Store


@pytest.fixture
def other(make_store: Callable[..., Store], lab: SimpleNamespace) -> Leaderboard:
    """A campaign on the same items whose winner is only fair."""
    store = make_store()
    lab.record(store, "trial 0", "search", "finalist", lab.outcome("trial 2", "search"))
    lab.record(store, "trial 0", "holdout", "winner", lab.outcome("trial 2", "holdout"))
    return leaderboard(store)


def test_the_others_are_tested_against_the_first(board: Leaderboard, other: Leaderboard) -> None:
    found = comparison([board, other, other], labels=["a", "b", "c"])
    assert [(entry.label, entry.row) for entry in found.entries] == [
        ("a", "trial 1"),
        ("b", "trial 0"),
        ("c", "trial 0"),
    ]
    one = found.differences[0]
    outcomes = [
        b.row(name).splits["holdout"].outcome
        for b, name in ((other, "trial 0"), (board, "trial 1"))
    ]
    assert outcomes[0] is not None
    assert outcomes[1] is not None
    assert one.overall == paired(outcomes[0], outcomes[1], board.campaign.goals)
    assert one.overall.difference < 0
    assert set(one.tasks) == {"zoo_extraction", "zoo_tools", "zoo_facts"}
    ps = [d.overall.p for d in found.differences]
    assert tuple(d.p_corrected for d in found.differences) == holm(ps)


def test_the_first_ones_weights_hold_for_all(board: Leaderboard, other: Leaderboard) -> None:
    goals = tuple(
        replace(goal, weight=weight)
        for goal, weight in zip(board.campaign.goals, (5.0, 1.0, 1.0), strict=True)
    )
    first = replace(board, campaign=replace(board.campaign, goals=goals))
    outcome = other.row("trial 0").splits["holdout"].outcome
    assert outcome is not None
    entry = comparison([first, other]).entries[1]
    assert entry.objective == split_scores(outcome, goals).objective
    assert entry.objective != other.row("trial 0").splits["holdout"].objective


def test_the_last_split_that_all_have_is_shown(
    board: Leaderboard, make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    store = make_store()
    lab.fill(store, until="search")
    running = leaderboard(store)
    found = comparison([board, running])
    assert found.split == "search"
    assert found.entries[1].row == "trial 1"
    blank = comparison([board, running], split="holdout")
    assert (blank.entries[1].row, blank.entries[1].objective) == ("no merge scored", None)
    assert blank.differences == ()
    assert any("no paired test" in note for note in blank.grid().notes)


def test_leaderboards_from_json_compare_without_tests(board: Leaderboard) -> None:
    read = Leaderboard.from_json(board.to_json())
    found = comparison([read, read])
    assert found.differences == ()
    assert found.entries[0].objective == board.row("trial 1").splits["holdout"].objective


def test_the_grid_has_a_line_a_campaign(board: Leaderboard, other: Leaderboard) -> None:
    grid = comparison([board, other], labels=["a", "b"]).grid()
    assert [line.name for line in grid.lines] == ["a: trial 1", "b: trial 0"]
    assert [column.header for column in grid.columns] == ["mean", "extraction", "tools", "facts"]
    notes = " ".join(grid.notes)
    assert "b against a: -0." in notes
    assert "b against a by task: extraction -" in notes


def test_one_alone_is_refused(board: Leaderboard) -> None:
    with pytest.raises(ResultsError, match="expected two or more"):
        comparison([board])
