from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from evomerge.errors import ResultsError
from evomerge.report import Leaderboard
from evomerge.report.likeness import common_goals, unique_labels


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


def test_labels_are_told_apart() -> None:
    assert unique_labels(["a", "b", "a", "a"]) == ["a", "b", "a #2", "a #3"]
