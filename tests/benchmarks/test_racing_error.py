"""The error of racing holds where what is expected of items is estimated from few models."""

from __future__ import annotations

import pytest

from benchmarks.search.racing_error import DRAWS, share_given_up, share_used

MOST = 0.1 + 2 * 0.03  # as stated, and two standard errors of 100 runs


@pytest.mark.parametrize("binary", [True, False], ids=["0/1", "log-likelihoods"])
@pytest.mark.parametrize("name", list(DRAWS))
@pytest.mark.parametrize("models", [6, 14])
def test_equal_candidates_are_given_up_no_more_often_than_stated(
    name: str, binary: bool, models: int
) -> None:
    for items, tasks, agree in ((64, 4, False), (320, 1, True)):
        found = share_given_up(
            DRAWS[name],
            items=items,
            models=models,
            binary=binary,
            tasks=tasks,
            agree=agree,
            runs=100,
        )
        assert found <= MOST


def test_incumbents_that_survived_races_are_no_harder_to_equal() -> None:
    found = share_given_up(
        DRAWS["typical"], items=64, models=6, binary=True, runs=40, candidates=10
    )
    assert found <= 0.1 + 2 * 0.015


def test_worse_ones_are_given_up_early() -> None:
    assert share_used(items=320, models=6, binary=True, runs=40) < 0.5
