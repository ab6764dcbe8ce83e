from __future__ import annotations

import inspect

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from evomerge.campaign import Search
from evomerge.errors import CampaignError
from evomerge.search.samplers import BASELINE_ATTRS, Samplers

SPACE = {name: FloatDistribution(0.0, 1.0) for name in "abcd"}
NAMES = ("cmaes", "tpe", "nsga2", "gp", "random", "qmc")


def draw(name: str, number: int, seed: int = 0) -> dict[str, float]:
    samplers = Samplers(Search(sampler=name, seed=seed), SPACE, 1)  # type: ignore[arg-type]
    study = optuna.create_study(sampler=samplers.at(number, 0))
    return study.ask(fixed_distributions=SPACE).params


@pytest.mark.parametrize("name", NAMES)
def test_a_draw_is_a_function_of_seed_and_number(name: str) -> None:
    assert draw(name, 3) == draw(name, 3)
    assert draw(name, 3) != draw(name, 4)
    assert draw(name, 3) != draw(name, 3, seed=1)


def test_a_new_number_repeats_no_point_of_an_old_seed() -> None:
    points = {tuple(draw("random", n, seed).values()) for n in range(10) for seed in range(10)}
    assert len(points) == 100


def test_nothing_to_search_is_refused() -> None:
    with pytest.raises(CampaignError, match="nothing is searched"):
        Samplers(Search(), {}, 1)


@pytest.mark.parametrize("name", NAMES)
def test_several_objectives(name: str) -> None:
    settings = Search(sampler=name)  # type: ignore[arg-type]
    if name == "cmaes":
        with pytest.raises(CampaignError, match="use nsga2"):
            Samplers(settings, SPACE, 2)
    else:
        sampler = Samplers(settings, SPACE, 2).at(0, 0)
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        assert set(study.ask(fixed_distributions=SPACE).params) == set(SPACE)


def test_baselines_belong_to_the_first_generation() -> None:
    sampler = Samplers(Search(sampler="nsga2"), SPACE, 1).at(0, 0)
    assert isinstance(sampler, optuna.samplers.NSGAIISampler)
    study = optuna.create_study(sampler=sampler)
    study.add_trial(
        create_trial(
            params=dict.fromkeys(SPACE, 0.5),
            distributions=SPACE,
            values=[1.0],
            system_attrs=BASELINE_ATTRS,
        )
    )
    assert [t.params for t in sampler.get_population(study, 0)] == [dict.fromkeys(SPACE, 0.5)]


@pytest.mark.parametrize(
    "kind", [optuna.samplers.TPESampler, optuna.samplers.NSGAIISampler, optuna.samplers.GPSampler]
)
def test_every_argument_is_stated(kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna's defaults change between versions; only deprecated arguments may be left out."""
    stated: dict[str, object] = {}
    monkeypatch.setattr(kind, "__init__", lambda self, **arguments: stated.update(arguments))
    name = {"TPESampler": "tpe", "NSGAIISampler": "nsga2", "GPSampler": "gp"}[kind.__name__]
    monkeypatch.undo()
    known = set(inspect.signature(kind.__init__).parameters) - {"self"}
    monkeypatch.setattr(kind, "__init__", lambda self, **arguments: stated.update(arguments))
    Samplers(Search(sampler=name), SPACE, 1).at(0, 0)  # type: ignore[arg-type]
    deprecated = {"consider_prior", "prior_weight", "consider_magic_clip", "consider_endpoints"}
    deprecated |= {"gamma", "weights", "warn_independent_sampling"} if name == "tpe" else set()
    assert known - set(stated) <= deprecated
