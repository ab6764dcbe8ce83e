from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from evomerge.config import Cost
from evomerge.search.objectives import directions, reached


def test_one_value_is_always_maximised(driver: ModuleType, tmp_path: Path) -> None:
    assert directions(driver.fake_campaign(tmp_path / "out")) == ("maximize",)


def test_a_front_keeps_directions_and_has_one_more_for_each_cost(
    driver: ModuleType, tmp_path: Path
) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", "pareto")
    assert directions(campaign) == ("maximize", "minimize")
    costly = campaign.model_copy(update={"costs": (Cost(cost="parameters"),)})
    assert directions(costly) == ("maximize", "minimize", "minimize")


def test_a_task_may_state_its_own_direction(driver: ModuleType, tmp_path: Path) -> None:
    campaign = driver.fake_campaign(tmp_path / "out", "pareto")
    assert directions(campaign, lambda task, metric: task == "text") == ("minimize", "maximize")


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
