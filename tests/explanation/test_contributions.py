"""What parts of a winner add: the p-values are corrected over the tests that are made, each once."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy import stats

from evomerge.candidate.ablation import Ablation
from evomerge.explanation.contributions import contributions
from evomerge.objective import Objectives
from tests.report import studies


def test_with_one_objective_mean_and_task_are_one_test(tmp_path: Path) -> None:
    """17 items right with all parts, 11 of them without one: six gains, no loss."""
    store = studies.write(tmp_path / "results", "merge")
    goals = store.campaign.objectives[:1]
    campaign = store.campaign.model_copy(update={"objectives": goals})
    aims = Objectives.of(campaign, store.facts, store.evaluations(), "select")
    whole, left = studies.outcome("select", (17, 0)), studies.outcome("select", (11, 0))
    ablation = Ablation(
        expert="/m/tools", candidate=studies.merge((0, 0, 0.3, 0.4)), layers="all", tensors="all"
    )
    (found,) = contributions(aims, studies.merge(), whole, [ablation], lambda _: left, {})
    gain = found.tasks[goals[0].task]
    assert gain is not None
    assert found.mean is not None
    expected = stats.binomtest(6, 6).pvalue
    assert gain.p_corrected == found.mean.p_corrected == pytest.approx(expected)
