import random
from dataclasses import dataclass, field

import pytest

from evomerge import config as campaign
from evomerge.candidate import Conditional
from evomerge.space import Family, Space


@dataclass(frozen=True)
class Parameter:
    per_source: bool
    differentiable: bool = False
    default: bool | float | None = None
    reads: str | None = None


@dataclass(frozen=True)
class Method:
    parameters: dict = field(default_factory=dict)
    uses_base: bool = True
    gradients: object = "some"
    rows: bool = False
    elects: bool = False


WEIGHT, NORMALIZE = Parameter(True, differentiable=True), Parameter(False, default=False)
DENSITY, LAMBDA = Parameter(True, default=1.0), Parameter(False, differentiable=True, default=1.0)
RESCALE = Parameter(False, default=True)
SUMMED = {"weight": WEIGHT, "lambda": LAMBDA, "normalize": NORMALIZE}
SPARSE = {**SUMMED, "density": DENSITY}
METHODS = {
    "linear": Method({"weight": WEIGHT, "normalize": NORMALIZE}, uses_base=False),
    "task_arithmetic": Method(SUMMED),
    "ties": Method(SPARSE),
    "dare_linear": Method(SPARSE),
    "breadcrumbs": Method({**SPARSE, "rescale": RESCALE, "gamma": Parameter(True, default=0.01)}),
    "della_linear": Method(
        {**SPARSE, "rescale": RESCALE, "epsilon": Parameter(True, default=0.15)}
    ),
    "dare_ties": Method(SPARSE, elects=True),
    "slerp": Method({"t": Parameter(False, differentiable=True)}),
    "ungradientd": Method({"weight": WEIGHT}, gradients=None),
    "ram": Method({"epsilon": Parameter(False, default=1e-5)}),
    "odd": Method({"lambda": Parameter(True)}),
}
NUM_LAYERS = 4


@pytest.fixture
def make_space():
    def make(experts=("a", "b"), num_layers=NUM_LAYERS, vocabulary=None, **settings):
        named = {name: f"/{name}" for name in experts}
        family = Family("/base", named, num_layers, "float32", vocabulary)
        return Space.build(campaign.SpaceSettings.model_validate(settings), family, METHODS, seed=7)

    return make


@pytest.fixture
def draw():
    """Draw a point of a space, each dimension uniformly."""

    def draw(space, seed=0):
        rng = random.Random(seed)
        return {name: rng.uniform(d.low, d.high) for name, d in space.distributions.items()}

    return draw


def numbers(merge):
    """Yield (slice, model or None, parameter, filter or None) → number of a merge."""
    for place, piece in enumerate(merge.recipe().slices):
        scopes = [(None, piece.parameters)]
        scopes += [(source.model, source.parameters) for source in piece.sources]
        for model, parameters in scopes:
            for name, setting in parameters.items():
                listed = setting if isinstance(setting, tuple) else (Conditional(setting),)
                for one in listed:
                    yield (place, model, name, one.filter), one.value


@pytest.fixture(name="numbers")
def numbers_of():
    return lambda merge: dict(numbers(merge))
