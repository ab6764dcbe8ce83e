from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evomerge.errors import ResultsError, UserError
from evomerge.report.comparison import common_goals, compare_folders, comparison, comparison_report
from evomerge.report.leaderboard import Leaderboard, leaderboard
from evomerge.report.scores import paired
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
    assert one.overall == paired(board.aims["holdout"], outcomes[0], outcomes[1])
    assert one.overall.difference < 0
    assert set(one.tasks) == {"zoo_extraction", "zoo_tools", "zoo_facts"}
    ps = [d.overall.p for d in found.differences]
    assert tuple(d.p_corrected for d in found.differences) == holm(ps)


def test_the_first_ones_weights_hold_for_all(
    other: Leaderboard, make_store: Callable[..., Store], lab: SimpleNamespace
) -> None:
    weights = zip(lab.tasks, (5.0, 1.0, 1.0), strict=True)
    store = make_store(
        objectives=[{"task": t, "metric": "exact_match", "weight": w} for t, w in weights],
        normalize="best_expert",
    )
    lab.fill(store)
    entry = comparison([leaderboard(store), other]).entries[1]
    assert entry.objective is not None
    values = [value.value for value in entry.tasks.values() if value is not None]
    assert entry.objective.value == pytest.approx((5 * values[0] + values[1] + values[2]) / 7)


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
    assert any("no paired test" in note for note in comparison_report(blank).grids[0].notes)


def test_the_grid_has_a_line_a_campaign(board: Leaderboard, other: Leaderboard) -> None:
    (grid,) = comparison_report(comparison([board, other], labels=["a", "b"])).grids
    assert [line.name for line in grid.lines] == ["a: trial 1", "b: trial 0"]
    assert list(grid.headers[1:]) == ["mean", "extraction", "tools", "facts"]
    notes = " ".join(grid.notes)
    assert "b against a: -0." in notes
    assert "b against a by task: extraction -" in notes


def test_one_alone_is_refused(board: Leaderboard) -> None:
    with pytest.raises(ResultsError, match="expected two or more"):
        comparison([board])


def changed(board: Leaderboard, **changes: Any) -> Leaderboard:
    return replace(board, campaign=replace(board.campaign, **changes))


def test_like_campaigns_share_their_goals(board: Leaderboard) -> None:
    goals, left_out = common_goals([board, board], ["a", "b"])
    assert (goals, left_out) == (board.campaign.goals, ())


def test_another_lm_eval_is_refused_by_name(board: Leaderboard) -> None:
    other = changed(board, versions={"lm_eval": "0.4.9"})
    with pytest.raises(ResultsError, match=r"version of lm_eval is 0\.4\.13 in a and 0\.4\.9 in b"):
        common_goals([board, other], ["a", "b"])


def test_other_prompts_are_refused_by_name(board: Leaderboard) -> None:
    other = changed(board, prompts={**board.campaign.prompts, "zoo_tools": "beef"})
    with pytest.raises(ResultsError, match=r'prompts of task "zoo_tools" is 10ff in a and beef'):
        common_goals([board, other], ["a", "b"])


def test_another_metric_is_refused_by_name(board: Leaderboard) -> None:
    goals = tuple(replace(goal, report="acc") for goal in board.campaign.goals)
    with pytest.raises(ResultsError, match=r'metric of task "zoo_extraction" is exact_match in a'):
        common_goals([board, changed(board, goals=goals)], ["a", "b"])


def test_tasks_that_not_all_have_are_left_out(board: Leaderboard) -> None:
    goals = board.campaign.goals
    other = changed(board, goals=(replace(goals[0], task="own"), *goals[1:]))
    common, left_out = common_goals([board, other], ["a", "b"])
    assert [goal.task for goal in common] == ["zoo_tools", "zoo_facts"]
    assert left_out == ("zoo_extraction", "own")


def test_shares_of_unlike_experts_are_not_compared(board: Leaderboard) -> None:
    goals = tuple(replace(goal, normalized=True) for goal in board.campaign.goals)
    common, _ = common_goals([changed(board, goals=goals), board], ["a", "b"])
    assert common == board.campaign.goals


def test_nothing_in_common_is_refused(board: Leaderboard) -> None:
    other = changed(board, goals=(replace(board.campaign.goals[0], task="own"),))
    with pytest.raises(ResultsError, match="a and b have no task in common"):
        common_goals([board, other], ["a", "b"])


def test_folders_are_compared_under_their_names(store: Store) -> None:
    folder = Path(store.folder)
    data = json.loads(compare_folders([folder, folder], "json"))
    assert [entry["label"] for entry in data["entries"]] == [str(folder), f"{folder} #2"]
    assert data["differences"][0]["overall"]["n"] == 240


def test_a_folder_without_a_campaign_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="holds no campaign"):
        compare_folders([Path(store.folder), tmp_path])


def test_a_comparison_in_every_format(store: Store) -> None:
    folders = [Path(store.folder)] * 2
    label = f"{store.folder} #2"
    table = compare_folders(folders, width=200)
    assert f"{label} against {store.folder}: +0.000" in table
    assert f"| {store.folder}: trial 1 |" in compare_folders(folders, "markdown").replace("\\", "")
    first, second = csv.DictReader(StringIO(compare_folders(folders, "csv")))
    assert first["difference"] == ""
    assert (second["campaign"], second["difference"], second["p"]) == (label, "0.0", "1.0")
    for wrong in ({"format": "hml"}, {"split": "holdot"}):
        with pytest.raises(UserError, match="unknown"):
            compare_folders(folders, **wrong)  # type: ignore[arg-type]
