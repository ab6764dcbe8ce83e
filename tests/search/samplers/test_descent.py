from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from optuna.distributions import FloatDistribution

from evomerge.search.samplers.descent import BATCH, CHECKPOINTS, FIRST_STEP, Descent

SPACE = {name: FloatDistribution(0.0, 1.0) for name in "ab"}
START = {"a": 0.2, "b": 0.9, "density": 0.5}


def descent(counts: dict[str, int] | None = None, **more: object) -> Descent:
    arguments = {
        "index": 0,
        "start": START,
        "distributions": SPACE,
        "shares": {"t": 1.0},
        "seed": 3,
    }
    return Descent(**{**arguments, "counts": counts or {"t": 40}, **more})  # type: ignore[arg-type]


def gradients(point: dict[str, float], best: dict[str, float]) -> dict[str, float]:
    return {name: 2 * (point[name] - best[name]) for name in best}


def batches(path: Descent, steps: int) -> list[tuple[int, ...]]:
    found = []
    for _ in range(steps):
        found.append(path.next_step().items["t"])
        path.learn({"a": 1.0, "b": 1.0})
    return found


def test_it_goes_down_a_quadratic() -> None:
    path = descent()
    best = {"a": 0.7, "b": 0.3}
    while not path.over:
        path.learn(gradients(path.point, best))
    assert path.steps == CHECKPOINTS[-1]
    assert path.point == {
        "a": pytest.approx(0.7, abs=0.06),
        "b": pytest.approx(0.3, abs=0.06),
        "density": 0.5,
    }


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_step_is_as_long_whatever_the_scale_of_the_loss(scale: float) -> None:
    path = descent()
    path.learn({"a": scale, "b": -0.3 * scale})
    assert path.point["a"] == pytest.approx(START["a"] - FIRST_STEP)
    assert path.point["b"] == pytest.approx(START["b"] + FIRST_STEP)


def test_what_has_no_gradient_stays_and_what_leaves_its_range_is_put_back() -> None:
    path = descent()
    for _ in range(30):
        path.learn({"a": 1.0})
    assert path.point == {"a": 0.0, "b": START["b"], "density": 0.5}


def test_it_begins_exactly_where_it_was_told() -> None:
    third = {"a": 1 / 3, "b": 0.1, "density": 0.5}
    space = {name: FloatDistribution(1e-3, 1.0, log=True) for name in "ab"}
    step = descent(start=third, distributions=space).next_step()
    assert (step.params, step.number, step.shares) == (third, 0, {"t": 1.0})


def test_numbers_of_log_ranges_move_by_their_logarithm() -> None:
    space = {"a": FloatDistribution(1e-3, 10.0, log=True), "b": FloatDistribution(0.0, 1.0)}
    path = descent(start={"a": 0.1, "b": 0.5}, distributions=space)
    path.learn({"a": 1.0, "b": 1.0})
    assert path.point["a"] == pytest.approx(0.1 * math.exp(-FIRST_STEP))
    path = descent(start={"a": 0.1, "b": 0.5}, distributions=space)
    for _ in range(CHECKPOINTS[-1]):
        at = path.point
        path.learn({"a": 2 * (math.log(at["a"]) - math.log(0.4)) / at["a"], "b": 0.0})
    assert path.point["a"] == pytest.approx(0.4, rel=0.1)
    for _ in range(500):
        path.learn({"a": 1 / path.point["a"], "b": 1.0})
    assert path.point == {"a": pytest.approx(1e-3), "b": 0.0}
    assert path.point["a"] >= 1e-3


def test_the_gradient_of_a_log_range_is_chained() -> None:
    """Adam's second step depends on the ratio of the two gradients: by the logarithm both are the same."""
    space = {name: FloatDistribution(1e-3, 10.0, log=True) for name in "ab"}
    path = descent(start={"a": 0.1, "b": 0.1}, distributions=space)
    for _ in range(2):
        at = path.point
        path.learn({"a": 1 / at["a"], "b": 1.0})
    assert math.log(path.point["a"]) == pytest.approx(math.log(0.1) - 2 * FIRST_STEP)
    assert path.point["b"] > path.point["a"]


def test_checkpoints_are_due_and_the_last_one_ends_the_path() -> None:
    path, due = descent(), []
    while not path.over:
        path.learn({"a": 0.1, "b": 0.1})
        if path.due:
            due.append(path.steps)
            path.due = False
    assert tuple(due) == CHECKPOINTS


def test_a_worse_checkpoint_halves_the_step() -> None:
    path = descent()
    for loss, length in ((0.5, 1.0), (0.4, 1.0), (0.45, 0.5), (0.44, 0.5), (0.6, 0.25)):
        path.aims(loss)
        assert path.length == FIRST_STEP * length
    path.learn({"a": 1.0, "b": 1.0})
    assert path.point["a"] == pytest.approx(START["a"] - FIRST_STEP / 4)


@pytest.mark.parametrize("found", [None, {"a": math.nan, "b": 0.0}, {"a": math.inf}])
def test_a_failed_step_ends_the_path_where_it_is(found: dict[str, float] | None) -> None:
    path = descent()
    path.learn({"a": 1.0, "b": 1.0})
    before = path.point
    path.busy = True
    path.learn(found)
    assert (path.over, path.due, path.busy, path.steps, path.point) == (
        True,
        False,
        False,
        1,
        before,
    )


def test_mini_batches_are_fresh_and_without_replacement_in_an_epoch() -> None:
    count = 3 * BATCH + 5
    found = batches(descent({"t": count}), 12)
    assert all(len(one) == BATCH and one == tuple(sorted(set(one))) for one in found)
    for start in range(0, 12, 3):
        epoch = found[start : start + 3]
        assert len(set().union(*epoch)) == 3 * BATCH
    assert all(one != other for one, other in pairwise(found))
    assert set().union(*map(set, found)) == set(
        range(count)
    )  # what an epoch left out comes in another


def test_mini_batches_are_functions_of_seed_path_and_step() -> None:
    first = batches(descent({"t": 40}), 4)
    assert batches(descent({"t": 40}), 4) == first
    assert batches(descent({"t": 40}, seed=4), 4) != first
    assert batches(descent({"t": 40}, index=1), 4) != first


def test_a_small_task_is_read_whole() -> None:
    step = descent({"t": 5, "u": 40}, shares={"t": 0.5, "u": 0.5}).next_step()
    assert step.items["t"] == (0, 1, 2, 3, 4)
    assert len(step.items["u"]) == BATCH


def test_replayed_gradients_rebuild_it() -> None:
    path, again = descent(), descent()
    rng = np.random.default_rng(0)
    for number in range(20):
        found = dict(zip("ab", rng.normal(size=2).tolist(), strict=True))
        for one in (path, again):
            one.learn(found)
            if number % 7 == 6:
                one.aims(float(number))
    assert again.next_step() == path.next_step()
