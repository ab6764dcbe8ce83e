from __future__ import annotations

from dataclasses import replace

import pytest

from evomerge.objective import Objectives, in_lambda_grid, tuned_lambda
from evomerge.store import Store
from tests.played_campaign import store

__all__ = ["store"]


def test_the_tuned_lambda_is_the_best_on_select(store: Store) -> None:
    evaluations = store.evaluations()
    aims = Objectives.of(store.campaign, store.facts, evaluations, "select")
    assert tuned_lambda(aims, evaluations) == "baseline:task arithmetic λ=0.4"
    others = [one for one in evaluations if not in_lambda_grid(one.key)]
    assert tuned_lambda(aims, others) is None


def test_of_equals_it_is_the_smallest_whichever_worker_was_first(store: Store) -> None:
    evaluations = store.evaluations()
    aims = Objectives.of(store.campaign, store.facts, evaluations, "select")
    best = next(one for one in evaluations if one.split == "select" and in_lambda_grid(one.key))
    grid = [replace(best, key=f"baseline:task arithmetic λ={scale:g}") for scale in (0.8, 0.3, 1.0)]
    assert tuned_lambda(aims, grid) == grid[1].key
    assert tuned_lambda(aims, grid[::-1]) == grid[1].key


@pytest.mark.parametrize(
    ("key", "inside"),
    [
        ("baseline:task arithmetic λ=0.4", True),
        ("expert:task arithmetic λ=0.4", False),
        ("baseline:uniform average", False),
    ],
)
def test_the_grid_is_known_by_its_keys(key: str, inside: bool) -> None:
    assert in_lambda_grid(key) is inside
