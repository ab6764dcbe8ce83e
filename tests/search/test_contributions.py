from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import binomtest

from evomerge.candidate.trial import Pruned
from evomerge.objective import Objectives
from evomerge.search.contributions import contributions_of, p_worse


def test_contributions_add_up_to_the_objective(driver: ModuleType, tmp_path: Path) -> None:
    aims = Objectives(driver.fake_campaign(tmp_path / "out"))
    outcome = driver.outcome([0.5, 0.4, 0.3, 0.2])
    found = contributions_of(aims)(outcome)
    assert found is not None
    assert found.shape == (80,)
    (value,) = aims.values(outcome)
    total = sum(goal.weight for goal in aims.campaign.objectives)
    assert found.sum() / total == pytest.approx(value)


def test_what_has_no_number_for_each_item_is_unknown(driver: ModuleType, tmp_path: Path) -> None:
    campaign = driver.fake_campaign(tmp_path / "out")
    outcome, take = driver.outcome([0.5] * 4), contributions_of(Objectives(campaign))
    pairs = replace(outcome.scores["near"], metrics={"acc": (("x", 1),) * 40})
    assert take(replace(outcome, scores={**outcome.scores, "near": pairs})) is None
    assert take(replace(outcome, pruned=Pruned("behind", 1))) is None
    assert take(replace(outcome, scores={})) is None
    front = driver.fake_campaign(tmp_path / "front", "pareto")
    assert contributions_of(Objectives(front))(outcome) is None


def test_for_right_and_wrong_answers_it_is_mcnemars_exact_test() -> None:
    one, other = np.zeros(40), np.zeros(40)
    one[:2], other[2:10] = 1.0, 1.0  # it wins 2, and loses 8
    assert p_worse(one, other) == pytest.approx(binomtest(8, 10, alternative="greater").pvalue)
    assert p_worse(other, one) > 0.9
    assert p_worse(one, one) == 1.0
    assert p_worse(np.zeros(1), np.ones(1)) == 0.5


def test_its_error_is_what_it_says() -> None:
    rng = np.random.default_rng(0)
    found = [p_worse(*rng.integers(0, 2, (2, 64)).astype(float)) for _ in range(200)]
    assert 0.01 <= np.mean(np.array(found) <= 0.05) <= 0.1
