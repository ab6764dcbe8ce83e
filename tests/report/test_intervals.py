"""Intervals against libraries, published examples and the equations that define them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from evomerge.report.intervals import (
    added,
    is_binary,
    of_differences,
    of_scores,
    share,
    skewed,
    student,
    tango,
    wilson,
)


def binary(ones: int, n: int) -> np.ndarray:
    return np.repeat([1.0, 0.0], [ones, n - ones])


@pytest.mark.parametrize(("k", "n"), [(17, 64), (0, 50), (50, 50), (1, 1000), (0, 1)])
def test_wilson_is_that_of_statsmodels(k: int, n: int) -> None:
    assert wilson(k, n) == pytest.approx(proportion_confint(k, n, method="wilson"), abs=1e-12)


@pytest.mark.parametrize(("k", "n"), [(0, 0), (3, 2), (-1, 4)])
def test_wilson_refuses_impossible_counts(k: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"found {k} of {n} items"):
        wilson(k, n)


def test_a_part_of_the_quantile_is_another_level() -> None:
    level = 1 - 2 * stats.norm.sf(stats.norm.ppf(0.975) / 2)
    expected = proportion_confint(17, 64, alpha=1 - level, method="wilson")
    assert wilson(17, 64, 0.5) == pytest.approx(expected)
    values = np.random.default_rng(0).gamma(1.0, size=30)
    for interval in (partial(student, values), partial(skewed, values), partial(tango, 5, 2, 9)):
        widths = [np.ptp(interval(part)) for part in (0.0, 0.5, 1.0)]
        assert widths[0] == pytest.approx(0)
        assert 0.4 * widths[2] < widths[1] < 0.6 * widths[2]


def test_wilson_never_claims_certainty() -> None:
    low, high = wilson(64, 64)
    assert low == pytest.approx(0.943, abs=1e-3)
    assert high == 1.0


@pytest.mark.parametrize(
    ("gains", "losses", "n", "ends"),
    [(1, 7, 21, (-0.517, -0.026)), (6, 16, 161, (-0.1240, -0.0054))],
)
def test_tango_of_published_examples(
    gains: int, losses: int, n: int, ends: tuple[float, float]
) -> None:
    """Bentur et al. 2009 and Cavo et al. 2012, as R's contingencytables has them."""
    assert tango(gains, losses, n) == pytest.approx(ends, abs=6e-4 if n == 21 else 6e-5)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 100))
def test_tango_ends_where_the_score_test_rejects(gains: int, losses: int, ties: int) -> None:
    """The test of "no difference" is McNemar's without a correction, as statsmodels has it."""
    if gains + losses == 0:
        return
    table = [[ties, gains], [losses, 0]]
    p = mcnemar(table, exact=False, correction=False).pvalue
    low, high = tango(gains, losses, gains + losses + ties)
    assert (low > 0 or high < 0) == (p < 0.05)
    assert -1 <= low <= high <= 1
    assert tango(losses, gains, gains + losses + ties) == pytest.approx((-high, -low), abs=1e-9)


def test_tango_of_models_that_agree_is_not_certain() -> None:
    low, high = tango(0, 0, 50)
    assert high == pytest.approx(-low)
    assert high == pytest.approx(1.96**2 / (50 + 1.96**2), abs=1e-3)
    assert tango(50, 0, 50)[1] == 1.0


def test_student_is_that_of_statsmodels() -> None:
    values = np.random.default_rng(0).normal(-2, 3, 40)
    assert student(values) == pytest.approx(DescrStatsW(values).tconfint_mean())


def test_skewed_without_skew_is_students() -> None:
    values = np.random.default_rng(0).normal(size=31)
    symmetric = np.concatenate([values, -values])
    assert skewed(symmetric) == pytest.approx(student(symmetric))
    assert skewed(np.full(9, 0.3)) == pytest.approx((0.3, 0.3))


def test_skewed_ends_where_the_transformed_statistic_is_students() -> None:
    """Hall's g(T) = T + γ T² / 3 + γ² T³ / 27 + γ / 6, γ the skewness over √n, at both ends."""
    values = -np.random.default_rng(1).gamma(0.5, size=60)
    gamma = stats.skew(values) / np.sqrt(60)
    error = values.std(ddof=1) / np.sqrt(60)
    quantile = stats.t.ppf(0.975, 59)
    for end, wanted in zip(skewed(values), (quantile, -quantile), strict=True):
        t = (values.mean() - end) / error
        found = t + gamma * t**2 / 3 + gamma**2 * t**3 / 27 + gamma / 6
        assert found == pytest.approx(wanted)


def test_skewed_is_near_scipys_bca_bootstrap() -> None:
    values = -np.random.default_rng(2).gamma(1.0, size=200)
    expected = stats.bootstrap(
        (values,), np.mean, method="BCa", n_resamples=9_999, rng=np.random.default_rng(1)
    ).confidence_interval
    low, high = skewed(values)
    width = expected.high - expected.low
    assert low == pytest.approx(expected.low, abs=0.06 * width)
    assert high == pytest.approx(expected.high, abs=0.06 * width)


@pytest.mark.parametrize("counts", [(56, 70, 48, 80), (40, 60, 20, 50), (270, 300, 80, 100)])
@pytest.mark.parametrize("method", ["newcomb", "score"])
def test_two_proportions_are_near_newcombes_and_the_score_interval(
    counts: tuple[int, int, int, int], method: str
) -> None:
    k1, n1, k2, n2 = counts
    expected = confint_proportions_2indep(*counts, method=method, compare="diff")
    intervals = (partial(wilson, k1, n1), partial(wilson, k2, n2))
    found = added((k1 / n1, k2 / n2), intervals, (1.0, -1.0))
    assert found == pytest.approx(expected, abs=0.1 * (expected[1] - expected[0]))


@pytest.mark.parametrize("successes", [50, 49, 25, 3])
def test_proportions_alike_are_as_one_of_all_items(successes: int) -> None:
    intervals = [partial(wilson, successes, 50)] * 4
    found = added([successes / 50] * 4, intervals, [0.25] * 4)
    assert found == pytest.approx(wilson(4 * successes, 200))


def test_skewed_means_alike_are_as_one_of_all_items() -> None:
    """But for Student's quantile, which is of the items of each."""
    values = -np.random.default_rng(5).gamma(0.5, size=400)
    found = added([values.mean()] * 3, [partial(skewed, values)] * 3, [1 / 3] * 3)
    assert found == pytest.approx(skewed(np.tile(values, 3)), rel=2e-3)


def test_one_mean_is_itself_and_none_without_an_interval() -> None:
    half = partial(wilson, 25, 50)
    low, high = half()
    assert added((0.5,), (half,), (1.0,)) == pytest.approx((low, high))
    assert added((0.5,), (half,), (-2.0,)) == pytest.approx((-2 * high, -2 * low))
    assert added((0.5, 1.0), (half, lambda part: None), (1.0, 1.0)) is None


def test_means_added_have_the_standard_error_of_the_sum() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=1000), rng.normal(size=4000)
    intervals = (partial(student, first), partial(student, second))
    low, high = added((first.mean(), second.mean()), intervals, (0.25, -0.75)) or (0.0, 0.0)
    sigma = np.sqrt(0.25**2 * first.var() / 1000 + 0.75**2 * second.var() / 4000)
    assert high - low == pytest.approx(2 * 1.96 * sigma, rel=0.01)
    assert (high + low) / 2 == pytest.approx(0.25 * first.mean() - 0.75 * second.mean())


def test_a_share_of_a_published_example() -> None:
    """Cavo et al. 2012: 59 items right by both, 6 and 16 by one; "MOVER Wilson" of R's contingencytables."""
    first = np.repeat([1.0, 1.0, 0.0, 0.0], [59, 6, 16, 80])
    second = np.repeat([1.0, 0.0, 1.0, 0.0], [59, 6, 16, 80])
    assert share(first, second, wilson(65, 161)) == pytest.approx((0.7592, 0.9866), abs=6e-5)


def test_a_share_of_symmetric_intervals_is_fiellers() -> None:
    """The ends s are where mean(values - s · divisor) is Student's quantile of errors from 0."""
    rng = np.random.default_rng(4)
    divisor = rng.normal(3.0, 1.0, 80)
    values = 0.5 * divisor + rng.normal(0.4, 0.7, 80)
    values, divisor = (np.concatenate([v, 2 * v.mean() - v]) for v in (values, divisor))
    quantile = stats.t.ppf(0.975, 159)
    ends = share(values, divisor, student(values))
    assert ends is not None
    for end, sign in zip(ends, (1, -1), strict=True):
        rest = values - end * divisor
        error = rest.std(ddof=1) / np.sqrt(160)
        assert rest.mean() / error == pytest.approx(sign * quantile)


@pytest.mark.parametrize(("ones", "other"), [(30, 45), (5, 12), (48, 50), (0, 20)])
def test_a_share_of_differences_is_mirrored_with_them(ones: int, other: int) -> None:
    first, second, divisor = binary(ones, 60), binary(other, 60)[::-1], binary(22, 60)
    mine, theirs = of_differences(first, second), of_differences(second, first)
    assert mine is not None
    assert theirs is not None
    low, high = share(first - second, divisor, mine) or (0.0, 0.0)
    mirrored = share(second - first, divisor, theirs) or (0.0, 0.0)
    assert low < (first - second).mean() / divisor.mean() < high
    assert mirrored == pytest.approx((-high, -low))


def test_the_divisor_itself_is_one_for_certain() -> None:
    scores = binary(30, 64)
    assert share(scores, scores, wilson(30, 64)) == (1.0, 1.0)


def test_shares_of_what_may_be_zero_have_no_interval() -> None:
    half = binary(10, 20)
    assert share(half, binary(0, 20), wilson(10, 20)) is None
    assert share(half, np.array([-1.0, 2.0] * 10), wilson(10, 20)) is None
    assert share(half, binary(1, 20), wilson(10, 20)) is not None


def test_intervals_by_what_is_scored() -> None:
    assert of_scores(binary(3, 9)) == wilson(3, 9)
    assert of_scores(np.array([0.5, 1.0])) == skewed(np.array([0.5, 1.0]))
    assert of_scores(np.array([-3.2])) is None
    first, second = binary(6, 9), binary(2, 9)
    assert of_differences(first, second) == tango(4, 0, 9)
    assert of_differences(first / 2, second) == student(first / 2 - second)
    assert of_differences(np.array([0.3]), np.array([0.2])) is None
    assert is_binary(first)
    assert not is_binary(first / 2)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=40).map(np.array))
def test_an_interval_holds_the_mean(values: np.ndarray) -> None:
    for low, high in filter(
        None, (of_scores(values), of_differences(values, np.zeros(len(values))))
    ):
        assert low - 1e-9 <= values.mean() <= high + 1e-9
