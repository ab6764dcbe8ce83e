import pytest

from evomerge.merge import METHODS
from evomerge.space.facts import WEIGHT, Family, MethodFacts

GRADIENTD = {"weight", "lambda", "t", "scale"}


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_the_merge_methods_state_all_that_a_space_asks(method):
    facts: MethodFacts = method
    assert isinstance(facts.needs_base, bool)
    smooth = {name for name, spec in facts.parameters.items() if spec.differentiable}
    assert smooth <= GRADIENTD
    assert facts.gradients is not None or not smooth
    if method.gradients is not None:
        assert smooth == GRADIENTD & set(facts.parameters)
    if WEIGHT in facts.parameters:
        assert facts.parameters[WEIGHT].per_source


def test_a_family_keeps_the_order_of_its_experts():
    assert list(Family("/base", {"b": "/b", "a": "/a"}, 4, "float32").experts) == ["b", "a"]
