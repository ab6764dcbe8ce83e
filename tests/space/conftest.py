from dataclasses import dataclass, field

import pytest

from evomerge import campaign
from evomerge.space import Family, Space


@dataclass(frozen=True)
class Parameter:
    per_source: bool


@dataclass(frozen=True)
class Method:
    parameters: dict = field(default_factory=dict)
    needs_base: bool = True


WEIGHT, SHARED = Parameter(True), Parameter(False)
METHODS = {
    "linear": Method({"weight": WEIGHT, "normalize": SHARED}, needs_base=False),
    "task_arithmetic": Method({"weight": WEIGHT, "lambda": SHARED, "normalize": SHARED}),
    "ties": Method({"weight": WEIGHT, "density": WEIGHT, "lambda": SHARED, "normalize": SHARED}),
    "dare_linear": Method({"weight": WEIGHT, "density": WEIGHT, "lambda": SHARED}),
}
FAMILY = Family("/base", {"a": "/a", "b": "/b"}, num_layers=4, dtype="float32")


@pytest.fixture
def make_space():
    def make(**settings):
        space = campaign.Space.model_validate(settings)
        return Space.build(space, FAMILY, {name: METHODS[name] for name in space.method}, seed=7)

    return make
