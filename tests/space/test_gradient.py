import random

import numpy as np
import pytest

from evomerge.candidate.merge import at, component_of
from evomerge.candidate.trial import Gradients
from evomerge.space.dimensions import is_differentiable

WEIGHT = {"low": -0.5, "high": 1.2}
TENSORS = ("self_attn.q", "mlp.up", "norm")


class Loss:
    """A smooth function of a merge's numbers, tensor by tensor: Σ λ h + h² / 2, h = Σ a_i w_i."""

    def __init__(self, merge, seed=0):
        rng = random.Random(seed)
        self.tensors = []
        for group, layers in enumerate(merge.groups):
            for layer in range(*layers):
                for tensor in TENSORS:
                    name = f"model.layers.{layer}.{tensor}.weight"
                    place = group, component_of(merge.components, name)
                    self.tensors.append((place, [rng.uniform(-1, 1) for _ in merge.experts]))

    def value(self, merge):
        total = 0.0
        for place, factors in self.tensors:
            h = self._inner(merge, place, factors)
            total += self._lambda(merge, place) * h + h * h / 2
        return total

    def gradients(self, merge):
        shape = len(merge.groups), len(merge.components) + 1
        own, shared = np.zeros((*shape, len(merge.experts))), np.zeros((*shape, 1))
        for place, factors in self.tensors:
            h = self._inner(merge, place, factors)
            own[place] += (self._lambda(merge, place) + h) * np.array(factors)
            shared[place] += h
        return Gradients(numbers={"weight": own, "lambda": shared})

    def _inner(self, merge, place, factors):
        if "weight" in merge.fixed:
            return merge.fixed["weight"] * sum(factors)
        return float(np.dot(at(at(merge.own["weight"], place[0]), place[1]), factors))

    def _lambda(self, merge, place):
        if "lambda" in merge.shared:
            return at(at(merge.shared["lambda"], place[0]), place[1])
        return merge.fixed.get("lambda", 1.0)


def spaces():
    mixed = {"a": {"low": 0.5, "high": 2.0}, "b": 0.7}
    free = {"layers": 2, "components": ["mlp", "attn"]}
    yield "free", {**free, "parameters": {"weight": WEIGHT}}
    yield "one value", {"parameters": {"weight": WEIGHT, "lambda": {"low": 0.5, "high": 2.0}}}
    yield (
        "log",
        {
            **free,
            "parameters": {
                "weight": {"low": 0.01, "high": 1.0, "log": True},
                "lambda": {"low": 0.1, "high": 3.0, "log": True, "per": ["component"]},
            },
        },
    )
    yield "sum", {**free, "parameters": {"weight": {"low": 0.0, "high": 1.0, "sum": 1.5}}}
    yield "per expert", {**free, "parameters": {"weight": {**WEIGHT, "experts": mixed}}}
    yield "shared weight", {**free, "parameters": {"weight": {**WEIGHT, "per": ["layer"]}}}
    yield "subsets", {**free, "subsets": True, "parameters": {"weight": WEIGHT}}
    yield "subset of shared", {"subsets": True, "parameters": {"weight": {**WEIGHT, "per": []}}}
    yield (
        "subset of fixed",
        {
            "subsets": True,
            "parameters": {"weight": 0.5, "lambda": {"low": 0.0, "high": 1.0}},
        },
    )
    yield (
        "subset of a sum",
        {
            "subsets": True,
            "parameters": {"weight": {"low": 0.1, "high": 1.0, "sum": 1.0}},
        },
    )
    yield (
        "method",
        {
            **free,
            "method": ["task_arithmetic", "ties"],
            "parameters": {"weight": WEIGHT, "density": {"low": 0.1, "high": 1.0}},
        },
    )


@pytest.mark.parametrize(("settings"), [s for _, s in spaces()], ids=[name for name, _ in spaces()])
@pytest.mark.parametrize("seed", range(4))
def test_it_agrees_with_central_differences(make_space, draw, settings, seed):
    space = make_space(**{"method": "task_arithmetic", "experts": ("a", "b", "c"), **settings})
    point = draw(space, seed)
    merge = space.candidate(point)
    loss = Loss(merge, seed)
    found = space.gradient(point, loss.gradients(merge))
    assert tuple(found) == space.differentiable
    assert found
    step = 1e-6
    for name, derivative in found.items():
        up, down = ({**point, name: point[name] + sign * step} for sign in (1, -1))
        difference = loss.value(space.candidate(up)) - loss.value(space.candidate(down))
        assert derivative == pytest.approx(difference / (2 * step), rel=1e-5, abs=1e-7), name


def test_dimensions_without_gradient_are_left_out(make_space):
    space = make_space(
        method=["ties", "dare_linear"],
        subsets=True,
        parameters={"weight": WEIGHT, "density": {"low": 0.1, "high": 1.0, "per": []}},
    )
    assert space.differentiable == ("weight/a", "weight/b")
    assert {"density", "use/a", "method/ties"} <= set(space.distributions)


def test_a_parameter_that_the_chosen_method_does_not_read_has_gradient_0(make_space, draw):
    parameters = {"weight": WEIGHT, "lambda": {"low": 0.5, "high": 2.0}}
    space = make_space(method=["linear", "task_arithmetic"], parameters=parameters)
    point = {**draw(space), "method/linear": 1.0, "method/task_arithmetic": 0.0}
    merge = space.candidate(point)
    gradients = Loss(merge).gradients(merge)
    assert space.gradient(point, gradients)["lambda"] == 0.0
    assert space.gradient(point, gradients)["weight/a"] != 0.0


def test_a_missing_gradient_is_no_gradient_of_0(make_space, draw):
    space = make_space(method="task_arithmetic", parameters={"weight": WEIGHT})
    with pytest.raises(ValueError, match="no gradient by weight"):
        space.gradient(draw(space), Gradients(numbers={"lambda": (((0.0,),),)}))


def test_a_method_without_gradients_takes_none_from_the_others(make_space, draw):
    space = make_space(method=["ties", "ungradientd"], parameters={"weight": WEIGHT})
    assert is_differentiable("weight", space.methods)
    assert not is_differentiable("weight", {"ungradientd": space.methods["ungradientd"]})
    assert not is_differentiable("density", space.methods)
    assert not is_differentiable("unheard of", space.methods)
    assert space.differentiable == ("weight/a", "weight/b")
    point = {**draw(space), "method/ties": 0.0, "method/ungradientd": 1.0}
    assert space.gradient(point, Gradients()) == {"weight/a": 0.0, "weight/b": 0.0}
