"""Means and paired tests against scipy and statsmodels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from evomerge.report import statistics
from evomerge.report.intervals import student, tango, wilson
from evomerge.report.statistics import (
    PairedTest,
    Stratum,
    holm,
    interval,
    paired_test,
    weighted_mean,
)

scores = st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=40).map(np.array)


def binary(ones: int, n: int) -> np.ndarray:
    return np.repeat([1.0, 0.0], [ones, n - ones])


def against_none(differences: np.ndarray, weight: float = 1.0) -> Stratum:
    """Differences, as those of scores from 0."""
    return Stratum(differences, weight, minus=np.zeros(differences.size))


def outcomes(gains: int, losses: int, ties: int, weight: float = 1.0) -> Stratum:
    """Paired 0/1 scores, `ties` of them right twice."""
    first = np.repeat([1.0, 0.0, 1.0], [gains, losses, ties])
    second = np.repeat([0.0, 1.0, 1.0], [gains, losses, ties])
    return Stratum(first, weight, minus=second)


def the_test(strata: list[Stratum]) -> PairedTest:
    found = paired_test(strata)
    assert found is not None
    return found


def test_weighted_mean_weighs_tasks_not_items() -> None:
    strata = [Stratum(np.ones(10), 1.0), Stratum(np.zeros(1000), 3.0)]
    assert weighted_mean(strata) == 0.25


def test_less_counts_where_the_weight_is_negative() -> None:
    strata = [Stratum(np.ones(10), 1.0), Stratum(np.full(5, 3.0), -1.0)]
    assert weighted_mean(strata) == -1.0


def test_interval_of_one_binary_task_is_wilson() -> None:
    assert interval([Stratum(binary(48, 64))]) == pytest.approx(wilson(48, 64))
    low, high = wilson(48, 64)
    assert interval([Stratum(binary(48, 64), -2.0)]) == pytest.approx((-high, -low))


def test_interval_of_a_weighted_mean_has_its_standard_error() -> None:
    first, second = binary(30, 100), binary(90, 100)
    low, high = interval([Stratum(first, 1.0), Stratum(second, 3.0)]) or (0.0, 0.0)
    sigma = np.sqrt(0.25**2 * first.var() / 100 + 0.75**2 * second.var() / 100)
    assert high - low == pytest.approx(2 * 1.96 * sigma, rel=0.05)
    assert low < 0.75 < high


def test_interval_of_tasks_without_an_error_is_not_certain() -> None:
    found = interval([Stratum(np.ones(50)), Stratum(np.ones(50))])
    assert found == pytest.approx(wilson(100, 100))


def test_one_number_has_no_interval() -> None:
    alone = Stratum(np.array([-3.2]))
    assert interval([alone]) is None
    assert interval([Stratum(binary(1, 2)), alone]) is None
    assert interval([Stratum(binary(1, 2), divisor=binary(0, 2))]) is None
    assert paired_test([Stratum(np.array([-3.2]), minus=np.array([-3.0]))]) is None


@settings(max_examples=50, deadline=None)
@given(scores, scores)
def test_interval_holds_the_mean(first: np.ndarray, second: np.ndarray) -> None:
    strata = [Stratum(first), Stratum(second, 2.0)]
    ends = interval(strata)
    assert ends is not None
    assert ends[0] - 1e-12 <= weighted_mean(strata) <= ends[1] + 1e-12


@pytest.mark.parametrize(("wins", "losses", "ties"), [(12, 3, 49), (5, 5, 2), (0, 7, 0)])
def test_one_binary_task_is_exact_mcnemar(wins: int, losses: int, ties: int) -> None:
    test = the_test([outcomes(wins, losses, ties)])
    n = wins + losses + ties
    assert test.method == "exact McNemar"
    assert test.p == pytest.approx(mcnemar([[ties, wins], [losses, 0]], exact=True).pvalue)
    assert test.difference == pytest.approx((wins - losses) / n)
    assert (test.low, test.high) == pytest.approx(tango(wins, losses, n))
    assert test.n == n


def test_few_items_are_exact_as_in_scipy() -> None:
    first = np.array([0.4, -0.1, 0.9, 0.3, -0.2, 0.7, 0.25, 0.6])
    expected = stats.permutation_test(
        (first, np.zeros(8)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    test = the_test([against_none(first)])
    assert test.method == "exact sign flip"
    assert test.p == pytest.approx(expected.pvalue)


def test_many_items_agree_with_scipys_draws() -> None:
    values = np.random.default_rng(3).normal(0.15, 1.0, size=120)
    expected = stats.permutation_test(
        (values, np.zeros(120)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=19_999,
        rng=np.random.default_rng(0),
    )
    test = the_test([against_none(values)])
    assert test.method == "sign flip, 19999 draws"
    assert (test.low, test.high) == pytest.approx(student(values))
    assert test.p == pytest.approx(expected.pvalue, abs=0.015)


def test_tasks_of_equal_size_and_weight_pool_exactly() -> None:
    test = the_test([outcomes(9, 2, 29), outcomes(5, 4, 31)])
    assert test.method == "exact sign flip"
    assert test.p == pytest.approx(stats.binomtest(14, 20).pvalue)


def test_unequal_weights_by_draws_agree_with_enumeration(monkeypatch: pytest.MonkeyPatch) -> None:
    strata = [
        outcomes(20, 9, 31, 1.0),
        outcomes(12, 8, 40, 2.5),
        outcomes(9, 5, 3, 0.3),
    ]
    exact = the_test(strata)
    assert exact.method == "exact sign flip"
    monkeypatch.setattr(statistics, "EXACT_OUTCOMES", 1)
    drawn = the_test(strata)
    assert drawn.method.startswith("sign flip, ")
    assert drawn.p == pytest.approx(exact.p, abs=0.01)


@settings(max_examples=50, deadline=None)
@given(scores, scores)
def test_the_test_is_symmetric(first: np.ndarray, second: np.ndarray) -> None:
    n = min(first.size, second.size)
    first, second = first[:n], second[:n]
    one = the_test([Stratum(first, minus=second)])
    other = the_test([Stratum(second, minus=first)])
    assert one.p == pytest.approx(other.p)
    assert one.difference == -other.difference
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)
    assert 0 < one.p <= 1


def test_no_difference_is_no_evidence() -> None:
    test = the_test([outcomes(0, 0, 20)])
    assert (test.difference, test.p) == (0.0, 1.0)


def test_p_values_are_uniform_under_the_null() -> None:
    rng = np.random.default_rng(5)
    ps = [
        the_test([against_none(rng.normal(size=15)), against_none(rng.normal(size=20))]).p
        for _ in range(60)
    ]
    assert stats.kstest(ps, "uniform").pvalue > 0.01


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx((0.06, 0.03, 0.06))
    assert holm([0.6, 0.9]) == (1.0, 1.0)
    assert holm([]) == ()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_that_of_statsmodels(ps: list[float]) -> None:
    assert holm(ps) == pytest.approx(multipletests(ps, method="holm")[1])


def test_shares_are_tested_in_units_of_the_divisor() -> None:
    """One item of a task of which the best expert does half weighs as two of one that it does all of."""
    half, whole = binary(10, 20), np.ones(20)
    first, second = binary(8, 20), binary(0, 20)
    test = the_test([Stratum(first, 1.0, half, second), Stratum(first, 1.0, whole, second)])
    assert test.difference == pytest.approx((0.4 / 0.5 + 0.4) / 2)
    twice = the_test([Stratum(first, 2.0, whole, second), Stratum(first, 1.0, whole, second)])
    assert test.p == pytest.approx(twice.p)
    assert test.low > 0
