from evomerge.space import unused

WEIGHT = {"low": 0.0, "high": 1.0}
DENSITY = {"low": 0.1, "high": 1.0, "per": ["expert"]}


def test_the_dimensions_without_gradient_are_named_by_kind(make_space):
    parameters = {"weight": WEIGHT, "density": DENSITY}
    space = make_space(method="dare_linear", mask_seed=True, parameters=parameters)
    first, second = unused(space, "gradient")
    assert "no gradient by 3 of 5 dimensions (mask_seed, density ×2)" in first
    assert "gradient can learn nothing" in second
    assert unused(space, "cmaes") == (second.replace("so gradient", "so cmaes"),)
    assert unused(space, "random") == ()


def test_where_all_is_well_nothing_is_said(make_space):
    space = make_space(method="ties", parameters={"weight": WEIGHT})
    assert unused(space, "gradient") == ()


def test_a_coarse_beginning_is_not_for_descents(make_space):
    space = make_space(method="ties", layers=4, coarse=2, parameters={"weight": WEIGHT})
    (warning,) = unused(space, "gradient")
    assert "coarse is for the other samplers" in warning
    assert unused(space, "cmaes") == ()
