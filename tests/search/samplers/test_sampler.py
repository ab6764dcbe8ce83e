from __future__ import annotations

from evomerge.search.samplers.sampler import Measurement, seed_of


def test_each_trial_and_attempt_has_a_seed_of_its_own() -> None:
    seeds = {
        seed_of(*key) for key in ((s, n, a) for s in range(5) for n in range(20) for a in (0, 1, 2))
    }
    assert len(seeds) == 300
    assert all(0 <= one < 2**32 for one in seeds)


def test_seeds_stay_what_they_are_between_versions() -> None:
    """A stored campaign goes on with them."""
    assert (seed_of(0, 0), seed_of(7, 3), seed_of(7, 3, 1)) == (2968811710, 3466196061, 1060801321)


def test_results_are_equal_by_value() -> None:
    assert Measurement((0.5,), -0.5) == Measurement((0.5,), -0.5, ())
    assert Measurement((0.5,), -0.5) != Measurement((0.5,), -0.5, (0.0,))
