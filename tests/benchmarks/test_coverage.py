"""Intervals hold the true value as often as they say, as far as a few hundred draws can tell."""

from __future__ import annotations

import pytest

from benchmarks.statistics.coverage import CASES, coverage, exact_coverage

RUNS = 400


def errors(rate: float) -> float:
    """Return three standard errors of a rate that was found in `RUNS` draws."""
    return float(3 * (rate * (1 - rate) / RUNS) ** 0.5)


FEW = "pairs, 0/1, 3 % gained and 3 % lost"


@pytest.mark.parametrize("name", list(CASES))
def test_intervals_of_50_items_cover(name: str) -> None:
    most = 1.0 if name == FEW else 0.97 + errors(0.97)  # three pairs of 50 allow no less
    assert 0.93 - errors(0.93) <= coverage(CASES[name], 50, RUNS, seed=1) <= most


@pytest.mark.parametrize("name", ["objective of shares", "pairs, objective over unlike tasks"])
def test_intervals_of_1000_items_cover(name: str) -> None:
    assert coverage(CASES[name], 1_000, RUNS, seed=1) == pytest.approx(0.95, abs=errors(0.95))


def test_wilsons_coverage_at_one_rate_is_known() -> None:
    """At a rate of 0.5, those of 50 items whose counts lie within 7 of 25 (0.5 ± 0.138)."""
    assert exact_coverage(0.5, 50) == pytest.approx(0.9351, abs=1e-4)
