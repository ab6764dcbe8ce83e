from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from evomerge.search import directions, higher_is_better, objective_values
from evomerge.trial import Estimate, Outcome, TaskScores


def outcome(acc: float, perplexity: float) -> Outcome:
    return Outcome(
        {
            "near": TaskScores(("a",), {}, {"acc": Estimate(acc), "f1": Estimate(9.0)}),
            "text": TaskScores(("b",), {}, {"word_perplexity": Estimate(perplexity)}),
        }
    )


def test_the_mean_is_weighted_and_counts_a_loss_negatively(
    driver: ModuleType, tmp_path: Path
) -> None:
    campaign = driver.fake_campaign(tmp_path / "out")
    assert directions(campaign) == ("maximize",)
    assert objective_values(campaign, outcome(0.5, 2.0)) == ((3 * 0.5 - 2.0) / 4,)


def test_a_front_keeps_values_and_directions(driver: ModuleType, tmp_path: Path) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", "pareto")
    assert directions(campaign) == ("maximize", "minimize")
    assert objective_values(campaign, outcome(0.5, 2.0)) == (0.5, 2.0)


def test_a_task_may_state_its_own_direction(driver: ModuleType, tmp_path: Path) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", "pareto")
    assert directions(campaign, lambda task, metric: task == "text") == ("minimize", "maximize")


def test_other_splits_use_the_reported_metric(driver: ModuleType, tmp_path: Path) -> None:
    campaign = driver.fake_campaign(tmp_path / "out")
    near = campaign.objectives[0].model_copy(update={"report": "f1"})
    campaign = campaign.model_copy(update={"objectives": (near, campaign.objectives[1])})
    assert objective_values(campaign, outcome(0.5, 2.0), "select") == ((3 * 9.0 - 2.0) / 4,)
    assert objective_values(campaign, outcome(0.5, 2.0), "search") == ((3 * 0.5 - 2.0) / 4,)


@pytest.mark.parametrize(
    ("metric", "better"),
    [("acc", True), ("exact_match,strict-match", True), ("bits_per_byte", False), ("ter,x", False)],
)
def test_lm_eval_knows_which_metrics_are_losses(metric: str, better: bool) -> None:
    assert higher_is_better("any", metric) is better
