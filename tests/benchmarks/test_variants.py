import math
from typing import Any

import numpy as np
import pytest
from optuna.distributions import FloatDistribution

from benchmarks.search import samplers
from benchmarks.search._mixed import LEVELS, MixedSampler
from benchmarks.search._variants import (
    ENTRANTS,
    CmaSampler,
    MergekitSettings,
    ScreenedSampler,
    Stretched,
    gradient_of,
    layer_blocks,
    steps,
    task_vector_norms,
)
from evomerge.config import Campaign
from evomerge.preflight.check import Preflight, preflight
from evomerge.search.samplers.cmaes import SIGMA, CmaEsSampler
from evomerge.search.samplers.sampler import Measurement, Params, Problem, Sampler
from evomerge.search.samplers.unit_cube import UnitCube

JOBS = ("extraction", "facts")
TRIALS = 300


def checked(space: str, **changes: Any) -> Preflight:
    return preflight(
        Campaign.model_validate(
            {
                "name": "variants",
                "models": {
                    "base": "zoo:base",
                    "experts": [f"zoo:{job}" for job in JOBS],
                    "dtype": "float32",
                },
                "objectives": [{"task": f"zoo_{job}", "metric": samplers.METRIC} for job in JOBS],
                "tasks_path": str(samplers.Suite.zoo().tasks_path),
                "items": {"search": 4, "select": 4, "holdout": 4},
                "workers": {"count": 0},
                "space": {**samplers.SPACES[space], **changes},
                "search": {"sampler": "cmaes", "trials": TRIALS, "seed": 0},
            }
        )
    )


@pytest.fixture(scope="module")
def ready() -> Preflight:
    return checked("40")


@pytest.fixture(scope="module")
def mixed() -> Preflight:
    return checked("mixed")


def lost(loss: float) -> Measurement:
    return Measurement((-loss,), loss)


def searched(sampler: Sampler, ready: Preflight, trials: int) -> list[float]:
    """Losses in order: the distance from a point off the middle."""
    cube = UnitCube(ready.space.distributions)
    losses = []
    for number in range(trials):
        params = sampler.propose(number)
        assert params.keys() == ready.space.distributions.keys()
        assert all(
            one.low <= params[name] <= one.high for name, one in ready.space.distributions.items()
        )
        sampler.asked(number, params)
        losses.append(float(np.linalg.norm(cube.to_unit(params) - 0.7)))
        sampler.told(number, params, lost(losses[-1]))
    return losses


@pytest.mark.parametrize("entrant", ENTRANTS)
def test_every_entrant_comes_closer_and_a_failed_trial_tells_nothing(
    entrant: str, ready: Preflight
) -> None:
    sampler = ENTRANTS[entrant](ready)
    sampler.told(10_000, ready.space.middle("task_arithmetic"), None)
    losses = searched(sampler, ready, TRIALS)
    assert np.mean(losses[-20:]) < 0.95 * np.mean(losses[:20])
    assert searched(ENTRANTS[entrant](ready), ready, 40) == losses[:40]  # a function of the seed


@pytest.mark.parametrize("entrant", [name for name in ENTRANTS if name != "mergekit"])
def test_it_starts_at_the_best_point_known(entrant: str, ready: Preflight) -> None:
    sampler = ENTRANTS[entrant](ready)
    for at in (0.9, 0.3):  # too few for a surrogate to shift the draws
        sampler.known(dict.fromkeys(ready.space.distributions, at), lost(abs(at - 0.3)))
    drawn = np.array([list(sampler.propose(number).values()) for number in range(200)])
    assert drawn.mean() == pytest.approx(0.3, abs=0.1)


def test_with_equal_steps_it_is_the_sampler_of_the_package(ready: Preflight) -> None:
    distributions = ready.space.distributions
    plain = np.ones(len(distributions))
    ours = CmaSampler(UnitCube(distributions), 3, lambda mean: Stretched(mean, plain, TRIALS))
    theirs = CmaEsSampler(Problem(distributions, ("maximize",), TRIALS, 3))
    assert searched(ours, ready, 60) == pytest.approx(searched(theirs, ready, 60), rel=1e-9)


def test_mergekit_starts_at_equal_weights_whatever_is_known() -> None:
    space = {f"weight/{i}": FloatDistribution(-0.5, 1.5) for i in range(4)}
    settings = MergekitSettings(space, 5, 0)
    settings.known(dict.fromkeys(space, 1.5), lost(0.0))
    drawn = np.array([list(settings.propose(number).values()) for number in range(300)])
    assert drawn.mean() == pytest.approx(0.2, abs=0.03)
    assert drawn.std() == pytest.approx(1 / 6, rel=0.1)


def test_the_blocks_are_the_groups_of_layers(ready: Preflight, mixed: Preflight) -> None:
    names = list(ready.space.distributions)
    blocks = [{names[at].split("/")[2] for at in block} for block in layer_blocks(ready.space)]
    assert blocks == [{f"{layer}-{layer + 1}"} for layer in range(4)]
    of_none, *_ = layer_blocks(mixed.space)
    codes = {list(mixed.space.distributions)[at].split("/")[0] for at in of_none}
    assert codes == {"method", "use"}


def test_the_norms_are_of_what_a_weight_scales(ready: Preflight) -> None:
    norms = task_vector_norms(ready)
    assert norms.keys() == ready.space.distributions.keys()
    base, expert = (
        ready.family.checkpoints[model]
        for model in (ready.space.family.base, ready.space.family.experts["facts"])
    )
    moved = {
        name: float((expert.tensor(name).double() - base.tensor(name).double()).square().sum())
        for name in base.tensors
    }
    of_facts = [norm for name, norm in norms.items() if "/facts/" in name]
    assert sum(norm**2 for norm in of_facts) == pytest.approx(sum(moved.values()))
    attention = [square for name, square in moved.items() if "layers.2.self_attn" in name]
    assert norms["weight/facts/2-3/self_attn"] == pytest.approx(math.sqrt(sum(attention)))


def test_steps_move_the_tensors_equally_far(ready: Preflight) -> None:
    norms = task_vector_norms(ready)
    scales = steps(ready.space, norms)
    assert scales.mean() == pytest.approx(1)
    lengths = scales * list(norms.values())
    assert lengths == pytest.approx(np.full(len(lengths), lengths[0]))
    cube = UnitCube(ready.space.distributions)
    sampler = CmaSampler(cube, 0, lambda mean: Stretched(mean, scales, TRIALS))
    drawn = np.array([cube.to_unit(sampler.propose(number)) for number in range(400)])
    small = scales < 1.5  # of the others many draws end at the border
    assert drawn.std(axis=0)[small] == pytest.approx(SIGMA * scales[small], rel=0.15)


def test_the_surrogate_finds_the_gradient_of_a_plane() -> None:
    random = np.random.default_rng(0)
    gradient = random.normal(size=5)
    noted = [(point, float(point @ gradient + 3)) for point in random.random((40, 5))]
    assert gradient_of(noted) == pytest.approx(gradient, abs=0.01)


def test_of_several_draws_the_most_promising_is_taken(ready: Preflight) -> None:
    cube = UnitCube(ready.space.distributions)
    plain = np.ones(len(cube))
    random = np.random.default_rng(1)

    def first(kind: type[CmaSampler]) -> float:
        sampler = kind(cube, 0, lambda mean: Stretched(mean, plain, TRIALS))
        for point in random.random((60, len(cube))):
            sampler.known(cube.from_unit(point), lost(float(point.sum())))
        return float(np.mean([cube.to_unit(sampler.propose(n)).sum() for n in range(30)]))

    assert first(ScreenedSampler) < first(CmaSampler) - SIGMA


def test_choices_are_categories_and_densities_levels(mixed: Preflight) -> None:
    space = mixed.space
    sampler = MixedSampler(space, 0)
    best = space.middle("ties") | {"use/facts": 0.0, "use/extraction": 1.0}
    sampler.known(best, lost(0.0))
    drawn: list[Params] = [sampler.propose(number) for number in range(300)]
    methods = [space.method(point) for point in drawn]
    assert methods.count("ties") / 300 == pytest.approx(0.5 + 0.5 / 3, abs=0.1)
    assert set(methods) == set(space.settings.method)
    assert np.mean([point["use/facts"] for point in drawn]) == pytest.approx(0.25, abs=0.1)
    densities = {
        round(value, 6) for point in drawn for name, value in point.items() if "density" in name
    }
    assert densities <= {round(value, 6) for value in np.linspace(0.5, 1.0, LEVELS).tolist()}


def test_the_most_frequent_category_is_the_one_that_pays(mixed: Preflight) -> None:
    sampler = MixedSampler(mixed.space, 0)
    for number in range(400):
        params = sampler.propose(number)
        sampler.asked(number, params)
        sampler.told(number, params, lost(2 - params["use/facts"] - params["method/ties"]))
    last = [sampler.propose(number) for number in range(400, 450)]
    assert np.mean([point["use/facts"] for point in last]) > 0.8
    assert np.mean([point["method/ties"] for point in last]) > 0.6
