import pytest

from evomerge.merge.methods import METHODS
from evomerge.space.dimensions import WEIGHT, Family

GRADIENTD = {"weight", "lambda", "t", "scale", "r", "alpha"}


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_the_merge_methods_state_all_that_a_space_asks(method):
    smooth = {name for name, spec in method.parameters.items() if spec.differentiable}
    assert smooth <= GRADIENTD
    assert method.gradients is not None or not smooth
    if method.gradients is not None:
        assert smooth == GRADIENTD & set(method.parameters)
    if WEIGHT in method.parameters:
        assert method.parameters[WEIGHT].per_source


def test_a_family_keeps_the_order_of_its_experts():
    assert list(Family("/base", {"b": "/b", "a": "/a"}, 4, "float32").experts) == ["b", "a"]
