from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from evomerge.search import directions, objective_values, reached
from evomerge.trial import Estimate, Outcome, TaskScores


def outcome(acc: float, perplexity: float) -> Outcome:
    return Outcome(
        {
            "near": TaskScores(("a",), {}, {"acc": Estimate(acc), "f1": Estimate(9.0)}),
            "text": TaskScores(("b",), {}, {"word_perplexity": Estimate(perplexity)}),
        }
    )


def test_one_value_is_always_maximised(driver: ModuleType, tmp_path: Path) -> None:
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
    ("target", "best", "enough"),
    [
        (0.8, 0.8, True),
        (0.8, 0.9, True),
        (0.8, 0.79, False),
        (0.8, None, False),
        (None, 9.0, False),
    ],
)
def test_a_target_ends_the_search_once_it_is_reached(
    driver: ModuleType, tmp_path: Path, target: float | None, best: float | None, enough: bool
) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", target=target)
    assert reached(campaign, best) is enough
