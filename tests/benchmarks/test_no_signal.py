"""Campaigns on experts that know nothing more than their base claim no gain."""

from __future__ import annotations

from benchmarks.statistics.no_signal import run


def test_campaigns_without_signal_claim_no_gain() -> None:
    found = run(range(6))
    assert sum(one.gain for one in found) <= 1
    assert all(one.tests for one in found)
    # each winner was lucky where it was searched: the campaigns did search, and holdout is fresh
    searched = sum(one.search for one in found) / len(found)
    assert searched > sum(one.holdout for one in found) / len(found) + 0.05
