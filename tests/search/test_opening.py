from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from evomerge.errors import CampaignError
from evomerge.objective import Objectives
from evomerge.search.opening import open_sampler
from evomerge.search.samplers.cmaes import SIGMA, CmaEsSampler
from evomerge.search.samplers.descent import BATCH
from evomerge.search.samplers.gradient import AROUND, DescentSampler
from evomerge.search.samplers.optuna_samplers import GpSampler, NsgaSampler, TpeSampler
from evomerge.search.samplers.random import RandomSampler
from evomerge.search.samplers.sampler import Sampler
from evomerge.search.samplers.sobol import SobolSampler

KINDS = {
    "gradient": DescentSampler,
    "cmaes": CmaEsSampler,
    "qmc": SobolSampler,
    "tpe": TpeSampler,
    "nsga2": NsgaSampler,
    "gp": GpSampler,
    "random": RandomSampler,
}
ONE, TWO = ("maximize",), ("maximize", "minimize")


@pytest.fixture
def opened(driver: ModuleType, tmp_path: Path):
    def open_one(
        sampler: str,
        directions: tuple[str, ...] = ONE,
        counts: dict[str, int] | None = None,
        space: dict[str, object] | None = None,
        **search: object,
    ) -> Sampler:
        mode = "mean" if len(directions) == 1 else "pareto"
        campaign = driver.fake_campaign(
            tmp_path / "out", mode, sampler=sampler, space=space, **search
        )
        found = {"near": 40, "text": 40} if counts is None else counts
        return open_sampler(
            campaign, driver.fake_space(campaign.space), Objectives(campaign), found, 20
        )  # type: ignore[arg-type]

    return open_one


@pytest.mark.parametrize("name", KINDS)
def test_every_name_is_a_sampler_of_the_campaigns_space(opened, name: str) -> None:
    found = opened(name)
    assert type(found) is KINDS[name]
    names = {f"weight/one/{n}-{n + 1}" for n in range(4)}
    assert set(found.propose(0)) == names
    assert found.propose(0) == opened(name).propose(0)
    if name != "gradient":
        assert found.propose(0) != opened(name, seed=8).propose(0)


@pytest.mark.parametrize("name", KINDS)
def test_several_objectives(opened, name: str) -> None:
    if name == "cmaes":
        with pytest.raises(CampaignError, match="use gradient, tpe, nsga2"):
            opened(name, TWO)
    else:
        assert len(opened(name, TWO).propose(0)) == 4


def test_nothing_to_search_is_refused(opened) -> None:
    with pytest.raises(CampaignError, match="nothing is searched"):
        opened("random", space={"parameters": {"weight": 0.5}})


def test_gradient_is_refused_where_there_is_none(opened) -> None:
    with pytest.raises(CampaignError, match="no task has a gradient") as caught:
        opened("gradient", counts={})
    assert caught.value.field == "search.sampler"
    density = {"weight": 0.5, "density": {"low": 0.1, "high": 1.0}}
    with pytest.raises(CampaignError, match="no searched number has a gradient"):
        opened("gradient", space={"method": "ties", "parameters": density})


def test_gradient_shares_the_loss_as_the_objectives_weigh(opened) -> None:
    step = opened("gradient").next_step()
    assert step.shares == {"near": 0.75, "text": 0.25}
    assert {task: len(chosen) for task, chosen in step.items.items()} == {
        "near": BATCH,
        "text": BATCH,
    }
    alone = opened("gradient", counts={"text": 5}).next_step()  # the other has no gold text
    assert (alone.shares, alone.items) == ({"text": 1.0}, {"text": (0, 1, 2, 3, 4)})


def test_to_a_front_lead_paths_of_other_shares(opened) -> None:
    shares = opened("gradient", TWO)._shares
    assert shares[0] == {"near": 0.75, "text": 0.25}
    assert len({tuple(one.values()) for one in shares}) == 4
    assert all(sum(one.values()) == pytest.approx(1.0) for one in shares)
    assert shares == opened("gradient", TWO)._shares
    assert shares != opened("gradient", TWO, seed=8)._shares


def test_after_the_paths_cmaes_takes_smaller_steps_and_on_a_front_nsga2(opened) -> None:
    found = opened("gradient")
    beside, after = found._other(SIGMA), found._other(AROUND)
    assert (beside._sigma, after._sigma) == (SIGMA, AROUND)
    assert type(opened("gradient", TWO)._other(AROUND)) is NsgaSampler


@pytest.mark.parametrize("least", [0.3, 0.1])
def test_it_begins_at_defaults_where_no_naive_sum_lies_in_the_space(opened, least: float) -> None:
    """Untuned TIES, of density 0.2, lies in the second and is no start."""
    density = {"low": least, "high": 1.0, "per": []}
    weight = {"low": 0.0, "high": 1.2}
    settings = {"method": "ties", "parameters": {"weight": weight, "density": density}}
    found = opened("cmaes", space=settings)
    drawn = [found.propose(number)["density"] for number in range(100)]
    assert sum(drawn) / 100 == pytest.approx(1.0, abs=3 * SIGMA / 2)
