from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evomerge.report import statistics
from evomerge.report.statistics import (
    Stratum,
    bootstrap,
    holm,
    interval,
    is_binary,
    paired_test,
    weighted_mean,
    wilson,
)

scores = st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=40).map(np.array)


def binary(ones: int, n: int) -> np.ndarray:
    return np.repeat([1.0, 0.0], [ones, n - ones])


def test_wilson_is_the_closed_form() -> None:
    k, n, z = 17, 64, stats.norm.ppf(0.975)
    p = k / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert wilson(k, n) == pytest.approx((centre - half, centre + half))


@pytest.mark.parametrize(("k", "n"), [(0, 0), (3, 2), (-1, 4)])
def test_wilson_refuses_impossible_counts(k: int, n: int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - scipy's message is its own
        wilson(k, n)


def test_wilson_never_claims_certainty() -> None:
    low, high = wilson(64, 64)
    assert low == pytest.approx(0.943, abs=1e-3)
    assert high == 1.0


def test_weighted_mean_weighs_tasks_not_items() -> None:
    strata = [Stratum(np.ones(10), 1.0), Stratum(np.zeros(1000), 3.0)]
    assert weighted_mean(strata) == 0.25


@pytest.mark.parametrize("values", [binary(31, 64), np.random.default_rng(0).normal(-2, 3, 200)])
def test_bootstrap_agrees_with_scipy(values: np.ndarray) -> None:
    expected = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=9_999, rng=np.random.default_rng(1)
    ).confidence_interval
    low, high = bootstrap([Stratum(values)])
    tolerance = 0.05 * (expected.high - expected.low) + 1 / 64 * is_binary(values)
    assert low == pytest.approx(expected.low, abs=tolerance)
    assert high == pytest.approx(expected.high, abs=tolerance)


def test_bootstrap_resamples_within_tasks() -> None:
    # each task is constant, so resampling within tasks moves nothing; pooled items would vary
    strata = [Stratum(np.zeros(50)), Stratum(np.ones(50))]
    assert bootstrap(strata) == (0.5, 0.5)


def test_bootstrap_of_a_weighted_mean_has_its_standard_error() -> None:
    first, second = binary(30, 100), binary(90, 100)
    low, high = bootstrap([Stratum(first, 1.0), Stratum(second, 3.0)])
    sigma = np.sqrt(0.25**2 * first.var() / 100 + 0.75**2 * second.var() / 100)
    assert high - low == pytest.approx(2 * 1.96 * sigma, rel=0.05)
    assert low < 0.75 < high


def test_the_same_seed_gives_the_same_interval() -> None:
    strata = [Stratum(np.random.default_rng(0).normal(size=30))]
    assert bootstrap(strata) == bootstrap(strata)
    assert bootstrap(strata) != bootstrap(strata, seed=1)


def test_interval_of_one_binary_task_is_wilson() -> None:
    assert interval([Stratum(binary(48, 64))]) == pytest.approx(wilson(48, 64))


def test_interval_where_nothing_can_be_resampled() -> None:
    low, high = interval([Stratum(np.ones(50)), Stratum(np.ones(50))]) or (None, None)
    one = 1 - wilson(50, 50)[0]
    assert high == 1.0
    assert low == pytest.approx(1 - one / np.sqrt(2))


def test_one_number_has_no_interval() -> None:
    assert interval([Stratum(np.array([-3.2]))]) is None


@settings(max_examples=50, deadline=None)
@given(scores, scores)
def test_interval_holds_the_mean(first: np.ndarray, second: np.ndarray) -> None:
    strata = [Stratum(first), Stratum(second, 2.0)]
    ends = interval(strata)
    assert ends is not None
    assert ends[0] - 1e-12 <= weighted_mean(strata) <= ends[1] + 1e-12


@pytest.mark.parametrize(("wins", "losses", "ties"), [(12, 3, 49), (5, 5, 2), (0, 7, 0)])
def test_one_binary_task_is_exact_mcnemar(wins: int, losses: int, ties: int) -> None:
    differences = np.repeat([1.0, -1.0, 0.0], [wins, losses, ties])
    test = paired_test([Stratum(differences)], binary=True)
    assert test.method == "exact McNemar"
    assert test.p == pytest.approx(stats.binomtest(wins, wins + losses).pvalue)
    assert test.difference == pytest.approx((wins - losses) / (wins + losses + ties))
    assert test.n == wins + losses + ties


def test_few_items_are_exact_as_in_scipy() -> None:
    first = np.array([0.4, -0.1, 0.9, 0.3, -0.2, 0.7, 0.25, 0.6])
    expected = stats.permutation_test(
        (first, np.zeros(8)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    test = paired_test([Stratum(first)])
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
    test = paired_test([Stratum(values)])
    assert test.method == "sign flip, 19999 draws"
    assert test.p == pytest.approx(expected.pvalue, abs=0.015)


def test_tasks_of_equal_size_and_weight_pool_exactly() -> None:
    first = np.repeat([1.0, -1.0, 0.0], [9, 2, 29])
    second = np.repeat([1.0, -1.0, 0.0], [5, 4, 31])
    test = paired_test([Stratum(first), Stratum(second)], binary=True)
    assert test.method == "exact sign flip"
    assert test.p == pytest.approx(stats.binomtest(14, 20).pvalue)


def test_unequal_weights_by_draws_agree_with_enumeration(monkeypatch: pytest.MonkeyPatch) -> None:
    strata = [
        Stratum(np.repeat([1.0, -1.0, 0.0], [20, 9, 31]), 1.0),
        Stratum(np.repeat([1.0, -1.0, 0.0], [12, 8, 40]), 2.5),
        Stratum(np.repeat([1.0, -1.0, 0.0], [9, 5, 3]), 0.3),
    ]
    exact = paired_test(strata)
    assert exact.method == "exact sign flip"
    monkeypatch.setattr(statistics, "EXACT_OUTCOMES", 1)
    drawn = paired_test(strata)
    assert drawn.method.startswith("sign flip, ")
    assert drawn.p == pytest.approx(exact.p, abs=0.01)


@settings(max_examples=50, deadline=None)
@given(scores, scores)
def test_the_test_is_symmetric(first: np.ndarray, second: np.ndarray) -> None:
    n = min(first.size, second.size)
    difference = first[:n] - second[:n]
    one, other = paired_test([Stratum(difference)]), paired_test([Stratum(-difference)])
    assert one.p == pytest.approx(other.p)
    assert one.difference == -other.difference
    assert 0 < one.p <= 1


def test_no_difference_is_no_evidence() -> None:
    test = paired_test([Stratum(np.zeros(20))], binary=True)
    assert (test.difference, test.p) == (0.0, 1.0)


def test_p_values_are_uniform_under_the_null() -> None:
    rng = np.random.default_rng(5)
    ps = [
        paired_test([Stratum(rng.normal(size=15)), Stratum(rng.normal(size=20))]).p
        for _ in range(60)
    ]
    assert stats.kstest(ps, "uniform").pvalue > 0.01


def test_holm_by_hand() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx((0.06, 0.03, 0.06))
    assert holm([0.6, 0.9]) == (1.0, 1.0)
    assert holm([]) == ()


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_lies_between_raw_and_bonferroni(ps: list[float]) -> None:
    corrected = holm(ps)
    assert all(p <= c <= min(1.0, len(ps) * p) for p, c in zip(ps, corrected, strict=True))


def copula(rng: np.random.Generator, rates: tuple[float, ...], n: int, alike: float) -> np.ndarray:
    """0/1 scores `[models, n]` of models that find the same items hard."""
    common = rng.standard_normal(n)
    own = rng.standard_normal((len(rates), n))
    latent = np.sqrt(alike) * common + np.sqrt(1 - alike) * own
    return (latent < stats.norm.ppf(rates)[:, np.newaxis]).astype(float)


@pytest.mark.parametrize("alike", [0.0, 0.5])
@pytest.mark.parametrize(("rates", "n"), [((0.5, 0.6, 0.2), 64), ((0.55, 0.6, 0.6), 200)])
def test_intervals_of_shares_cover_the_true_share(
    rates: tuple[float, ...], n: int, alike: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The divisor is that of the better of two experts, found on the same items, tied ones included."""
    monkeypatch.setattr(statistics, "RESAMPLES", 999)
    rng = np.random.default_rng(5)
    true, covered, narrow = rates[0] / max(rates[1:]), 0, 0
    runs = 400
    for _ in range(runs):
        model, *experts = copula(rng, rates, n, alike)
        best = max(experts, key=lambda scores: scores.mean())
        scale = 1 / best.mean()
        low, high = interval([Stratum(model * scale, divisor=best * scale)]) or (0.0, 0.0)
        covered += low <= true <= high
        low, high = interval([Stratum(model * scale)]) or (0.0, 0.0)  # as if it were known
        narrow += low <= true <= high
    assert 0.92 <= covered / runs <= 0.98
    if not alike:
        assert narrow / runs < 0.90


def test_the_divisor_itself_is_one_for_certain() -> None:
    scores = binary(30, 64)
    share = Stratum(scores / scores.mean(), divisor=scores / scores.mean())
    assert interval([share]) == pytest.approx((1.0, 1.0))


def test_shares_of_what_is_nearly_always_zero_have_no_interval() -> None:
    rare = binary(1, 20) * 20
    assert interval([Stratum(binary(5, 20) * 20, divisor=rare)]) is None
    assert interval([Stratum(binary(5, 20), divisor=binary(15, 20) * 20 / 15)]) is not None


def test_of_many_values_pairs_are_drawn_together() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(50) + 0.5
    share = Stratum(values, divisor=values)
    assert bootstrap([share]) == pytest.approx((1.0, 1.0))
