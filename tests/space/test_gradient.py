import random

import pytest

from evomerge.candidate.trial import Gradients, TensorGradients
from evomerge.space.gradient import component_of, gradient, is_differentiable

WEIGHT = {"low": -0.5, "high": 1.2}
TENSORS = ("self_attn.q", "mlp.up", "norm")


class Loss:
    """A smooth function of a recipe's numbers, tensor by tensor: Σ λ h + h² / 2, h = Σ a_i w_i."""

    def __init__(self, recipe, seed=0):
        rng = random.Random(seed)
        self.tensors = []
        for place, piece in enumerate(recipe.slices):
            for layer in range(*piece.sources[0].layer_range):
                for tensor in TENSORS:
                    name = f"model.layers.{layer}.{tensor}.weight"
                    models = tuple(source.model for source in piece.sources)
                    own = {model: rng.uniform(-1, 1) for model in models}
                    self.tensors.append((name, place, models, own))

    def value(self, recipe):
        total = 0.0
        for name, place, models, factors in self.tensors:
            h = sum(factors[m] * self._weight(recipe, place, m, name) for m in models)
            total += self._lambda(recipe, place, name) * h + h * h / 2
        return total

    def gradients(self, recipe):
        found = {}
        for name, place, models, factors in self.tensors:
            h = sum(factors[m] * self._weight(recipe, place, m, name) for m in models)
            outer = self._lambda(recipe, place, name) + h
            own = tuple(0.0 if m == "/base" else outer * factors[m] for m in models)
            found[name] = TensorGradients(place, models, {"weight": own}, {"lambda": h})
        return Gradients(tensors=found)

    def _weight(self, recipe, place, model, tensor):
        sources = recipe.slices[place].sources
        own = next(source.parameters for source in sources if source.model == model)
        return 0.0 if model == "/base" else resolved({**recipe.parameters, **own}["weight"], tensor)

    def _lambda(self, recipe, place, tensor):
        scopes = {**recipe.parameters, **recipe.slices[place].parameters}
        return resolved(scopes.get("lambda", 1.0), tensor)


def resolved(setting, tensor):
    if not isinstance(setting, tuple):
        return setting
    return next(one.value for one in setting if one.filter is None or one.filter in tensor)


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
    recipe = space.recipe(point)
    loss = Loss(recipe, seed)
    found = gradient(space, point, loss.gradients(recipe))
    assert tuple(found) == space.differentiable
    assert found
    step = 1e-6
    for name, derivative in found.items():
        up, down = ({**point, name: point[name] + sign * step} for sign in (1, -1))
        difference = loss.value(space.recipe(up)) - loss.value(space.recipe(down))
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
    recipe = space.recipe(point)
    gradients = Loss(recipe).gradients(recipe)
    assert space.gradient(point, gradients)["lambda"] == 0.0
    assert space.gradient(point, gradients)["weight/a"] != 0.0


def test_a_missing_gradient_is_no_gradient_of_0(make_space, draw):
    space = make_space(method="task_arithmetic", parameters={"weight": WEIGHT})
    with pytest.raises(ValueError, match="no tensor has a gradient by weight"):
        space.gradient(
            draw(space), Gradients(tensors={"x": TensorGradients(0, ("/base", "/a", "/b"))})
        )


def test_a_method_without_gradients_takes_none_from_the_others(make_space, draw):
    space = make_space(method=["ties", "ungradientd"], parameters={"weight": WEIGHT})
    assert is_differentiable("weight", space.methods)
    assert not is_differentiable("weight", {"ungradientd": space.methods["ungradientd"]})
    assert not is_differentiable("density", space.methods)
    assert not is_differentiable("unheard of", space.methods)
    assert space.differentiable == ("weight/a", "weight/b")
    point = {**draw(space), "method/ties": 0.0, "method/ungradientd": 1.0}
    assert space.gradient(point, Gradients()) == {"weight/a": 0.0, "weight/b": 0.0}


def test_a_tensor_belongs_to_the_first_component_in_its_name():
    components = ("mlp.up", "mlp", "attn")
    names = ("x.mlp.up.weight", "x.mlp.down.weight", "x.attn.mlp", "norm")
    assert [component_of(components, name) for name in names] == [0, 1, 1, 3]
    assert component_of((), "anything") == 0
