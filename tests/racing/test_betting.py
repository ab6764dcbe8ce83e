from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.racing.betting import log_capital


def capital(differences, bounds, expected=None, spread=0.5):
    guess = np.zeros(len(bounds)) if expected is None else np.asarray(expected, dtype=float)
    bounds = np.asarray(bounds, dtype=float)
    return log_capital(np.asarray(differences, dtype=float), bounds, guess, spread)


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 3)), min_size=2, max_size=6),
    st.floats(0.01, 3.0),
    st.integers(0, 100),
)
def test_over_all_orders_an_equal_is_found_worse_no_more_often_than_stated(rows, spread, seed):
    differences = np.array([low for low, _ in rows], dtype=float)
    differences -= min(0.0, differences.sum()) / len(rows)  # in total 0 or better
    bounds = differences + [above for _, above in rows]
    expected = np.random.default_rng(seed).normal(size=len(rows))
    drawn = len(rows) - 1
    exceeded = [
        capital(differences[order][:drawn], bounds[order], expected[order], spread) >= math.log(4)
        for order in map(list, permutations(range(len(rows))))
    ]
    assert np.mean(exceeded) <= 1 / 4


def test_losses_are_evidence_and_gains_are_none():
    bounds = np.tile([0.0, 1.0], 20)
    losses, gains = np.tile([-1.0, 0.0], 10), np.tile([0.0, 1.0], 10)
    assert capital(losses, bounds) > math.log(10)
    assert capital(gains, bounds) <= 0
    assert capital([], bounds) == 0
    more = [capital(losses[:count], bounds) for count in (4, 8, 12)]
    assert more == sorted(more)


def test_what_is_left_may_make_up_for_it_or_not():
    bounds = [0.0, 0.0, 0.0, 1.0, 1.0, 0.0]
    assert math.isfinite(capital([-1.0, -1.0], bounds))  # two wins would make it equal
    assert capital([-1.0, -1.0, -1.0], bounds) == math.inf


def test_one_item_that_may_bring_much_is_waited_for():
    """The same losses say less where a single item that is left may outweigh them."""
    losses = np.full(30, -0.1)
    even, one = np.full(64, 0.2), np.full(64, 0.0)
    one[-1] = 12.8
    assert capital(losses, even) > math.log(10)
    assert capital(losses, one) < math.log(10)


def test_a_good_guess_saves_and_a_poor_one_costs():
    rng = np.random.default_rng(0)
    expected = rng.normal(0.0, 0.4, 200)
    differences = expected - expected.mean() - 0.1
    bounds = expected + 1.0
    drawn = differences[:60]
    guessed = capital(drawn, bounds, expected, 0.1)
    assert guessed > capital(drawn, bounds, 0 * expected, 0.4)
    assert guessed > capital(drawn, bounds, -expected, 0.4)


@pytest.mark.parametrize("spread", [0.0, 1e-12, 1e12])
def test_any_guessed_spread_will_do(spread):
    assert math.isfinite(capital([-0.5, 0.0, 0.5], [1.0] * 6, spread=spread))
    assert capital([0.0] * 3, [0.0] * 6, spread=spread) <= math.log(10)


def test_scale_does_not_matter():
    rng = np.random.default_rng(1)
    differences, bounds = -rng.random(10), rng.random(40)
    small = log_capital(differences, bounds, 0 * bounds, 0.3)
    large = log_capital(1e6 * differences, 1e6 * bounds, 0 * bounds, 3e5)
    assert small == pytest.approx(large)
