"""Every sampler has the properties on which studies rely; a new one is a class and a line."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from evomerge.search.samplers import SAMPLERS, Problem, Sampler, seed_of
from evomerge.testing.samplers import BuildSampler, SamplerSuite


class TestSamplers(SamplerSuite):
    @pytest.fixture(params=list(SAMPLERS))
    def build(self, request: pytest.FixtureRequest) -> BuildSampler:
        return SAMPLERS[request.param]


class Halton(Sampler):
    """A sampler from outside the package: one file."""

    learns = False

    def __init__(self, problem: Problem) -> None:
        self._ranges, self._seed = problem.distributions, problem.seed

    def propose(self, number: int, attempt: int = 0) -> dict[str, float]:
        """Return the point of this number, shifted by the seed."""
        shift = seed_of(self._seed, 0) / 2**32
        return {
            name: one.low + (one.high - one.low) * ((_inverse(number + 1, base) + shift) % 1)
            for base, (name, one) in zip((2, 3, 5, 7, 11), self._ranges.items(), strict=False)
        }


def _inverse(number: int, base: int) -> float:
    """Return the radical inverse (Halton 1960)."""
    found, share = 0.0, 1.0
    while number:
        share /= base
        number, digit = divmod(number, base)
        found += digit * share
    return found


class TestHalton(SamplerSuite):
    @pytest.fixture
    def build(self) -> BuildSampler:
        return Halton


def test_a_campaign_may_name_a_sampler_from_outside(
    driver: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SAMPLERS, "halton", Halton)
    campaign = driver.fake_campaign(tmp_path / "whole", sampler="halton")
    driver.run(campaign, workers=2)
    again = driver.fake_campaign(tmp_path / "broken", sampler="halton")
    driver.run(again, workers=2, reopen_at=(3, 11))
    assert driver.history(tmp_path / "whole") == driver.history(tmp_path / "broken")
    assert len(driver.history(tmp_path / "whole")) > 0


def test_the_guide_says_what_the_flags_say() -> None:
    page = (Path(__file__).parents[3] / "docs" / "guides" / "samplers.md").read_text()
    rows = [line.split("|")[1:5] for line in page.split("\n\n")[1].splitlines()[2:]]
    told = {
        name.strip("` "): (bool(needs.strip()), learns.strip() != "nothing", several.strip())
        for names, needs, learns, several in rows
        for name in names.split(",")
    }
    assert told == {
        name: (one.needs_gold, one.learns, "yes" if one.several_objectives else "no")
        for name, one in SAMPLERS.items()
    }
