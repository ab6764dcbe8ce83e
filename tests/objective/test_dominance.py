from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evomerge.objective.dominance import fronts, order


@given(
    arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(1, 3)), elements=st.integers(0, 4))
)
def test_a_row_stands_one_front_behind_those_that_dominate_it(values: np.ndarray) -> None:
    found = fronts(values)
    for row, front in zip(values, found, strict=True):
        better = (values >= row).all(axis=1) & (values > row).any(axis=1)
        assert front == (found[better].max() + 1 if better.any() else 0)


def test_a_known_front() -> None:
    values = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.4, 0.4], [0.5, 0.5], [0.0, 0.0]])
    assert fronts(values).tolist() == [0, 0, 0, 1, 0, 2]


def test_order_is_by_front_then_mean_then_age() -> None:
    values = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 0.0)]
    assert order(values, [0.0, 0.6, 0.9, 0.6]) == [(2, 0), (1, 0), (3, 0), (0, 1)]
    assert order([], []) == []


def test_what_meets_its_constraints_stands_first_then_the_nearer() -> None:
    values = [(9.0,), (1.0,), (2.0,), (8.0,), (7.0,)]
    means = [row[0] for row in values]
    missing = [0.5, 0.0, -1.0, 0.2, 0.5]
    assert order(values, means, missing) == [(2, 0), (1, 1), (3, 2), (0, 3), (4, 3)]
    assert order(values[:1], means[:1], [0.3]) == [(0, 0)]
