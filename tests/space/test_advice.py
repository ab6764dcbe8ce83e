from evomerge.space import unused

WEIGHT = {"low": 0.0, "high": 1.0}
DENSITY = {"low": 0.1, "high": 1.0, "per": ["expert"]}


def test_the_dimensions_without_gradient_are_named_by_kind(make_space):
    parameters = {"weight": WEIGHT, "density": DENSITY}
    space = make_space(method="dare_linear", parameters=parameters)
    (found,) = unused(space, "gradient")
    assert "no gradient by 2 of 4 dimensions (density ×2)" in found
    assert unused(space, "cmaes") == unused(space, "random") == ()


def test_where_all_is_well_nothing_is_said(make_space):
    space = make_space(method="ties", parameters={"weight": WEIGHT})
    assert unused(space, "gradient") == ()
