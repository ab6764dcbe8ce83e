from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, hypergeom, norm, permutation_test

from evomerge.racing.sign_flip import fractions_of, levels, p_value

ALL_TO_COME = 1e-9  # of the information: the rest can make up for anything


@pytest.mark.parametrize(("wins", "losses"), [(0, 4), (3, 9), (10, 30), (5, 5)])
def test_for_0_1_metrics_it_is_mcnemars_exact_test(wins, losses):
    differences = np.array([1.0] * wins + [-1.0] * losses + [0.0] * 7)
    exact = binomtest(wins, wins + losses, alternative="less").pvalue
    assert p_value(differences, ALL_TO_COME) == pytest.approx(exact, rel=1e-6)


def test_for_any_metric_it_is_the_permutation_test_of_paired_differences():
    differences = np.random.default_rng(0).standard_normal(10) - 0.4
    exact = permutation_test(
        (differences,),
        lambda x, axis: x.sum(axis=axis),
        permutation_type="samples",
        n_resamples=5000,
        alternative="less",
        vectorized=True,
    ).pvalue
    assert p_value(differences, ALL_TO_COME) == pytest.approx(exact, abs=0.005)


@pytest.mark.parametrize(
    ("wins", "losses", "in_all"), [(3, 9, 30), (10, 30, 60), (2, 6, 14), (40, 60, 160)]
)
def test_late_looks_know_that_little_is_left(wins, losses, in_all):
    """Wins and losses drawn from `in_all`, half of which would be wins: the hypergeometric law."""
    scored = wins + losses
    differences = np.array([1.0] * wins + [-1.0] * losses)
    exact = hypergeom.cdf(wins, in_all, in_all // 2, scored)
    assert p_value(differences, scored / in_all) == pytest.approx(exact, rel=0.15, abs=1e-4)
    assert p_value(differences, scored / in_all) < p_value(differences, ALL_TO_COME)


@given(st.integers(0, 10**6), st.integers(1, 8), st.floats(0.1, 0.9))
def test_the_law_is_that_of_all_sign_flips(seed, count, fraction):
    differences = np.random.default_rng(seed).standard_normal(count)
    signs = np.array(list(product((-1, 1), repeat=count)))
    sums = signs @ differences
    weights = np.exp(-(sums**2) / (2 * (1 - fraction) / fraction * (differences**2).sum()))
    exact = weights[sums <= differences.sum() + 1e-9].sum() / weights.sum()
    close = 2 * weights.max() / weights.sum()  # two sums may be rounded past each other
    assert p_value(differences, fraction) == pytest.approx(exact, rel=0.01, abs=close)


def test_without_a_difference_nothing_is_said():
    assert p_value(np.zeros(5), 0.5) == 1.0


def test_levels_spend_the_whole_budget_and_no_more():
    fractions, alpha = (0.4, 0.7, 0.85, 0.95), 0.1
    times = np.array([f / (1 - f) for f in fractions])
    steps = np.sqrt(np.diff(times, prepend=0.0))
    walks = np.cumsum(np.random.default_rng(0).standard_normal((200_000, 4)) * steps, axis=1)
    crossed = norm.cdf(walks / np.sqrt(times)) <= np.array(levels(fractions, alpha))
    assert crossed[:, 0].mean() == pytest.approx(alpha * 0.4, abs=0.003)
    assert crossed.any(axis=1).mean() == pytest.approx(alpha * 0.95, abs=0.004)


def test_a_look_that_adds_nothing_gives_up_nothing():
    first, second, third = levels((0.5, 0.5, 0.8), 0.1)
    assert (first, second) == (pytest.approx(0.05, abs=1e-3), 0.0)
    assert third == pytest.approx(levels((0.5, 0.8), 0.1)[1])
    assert levels((0.5, 0.5 + 1e-15), 0.1)[1] == 0.0
    assert levels((0.5, 0.51), 0.1)[1] < 0.05


def test_fractions():
    assert fractions_of([2.0, 1.0, 1.0]) == (0.5, 0.75)
