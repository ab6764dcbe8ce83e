import pytest

from evomerge.errors import CampaignError

WEIGHT = {"low": 0.0, "high": 1.0}


def refused(make_space, **settings):
    with pytest.raises(CampaignError) as caught:
        make_space(**{"method": "ties", "parameters": {"weight": WEIGHT}, **settings})
    return str(caught.value)


def test_the_fields_that_only_models_and_methods_can_refute(make_space):
    summed = refused(make_space, parameters={"weight": 1.0, "lambda": {**WEIGHT, "sum": 1.0}})
    assert summed.startswith("space.parameters.lambda.sum: lambda is one number for all models")
    own = {**WEIGHT, "experts": {"a": 1.0}}
    single = refused(make_space, parameters={"weight": 1.0, "lambda": own})
    assert single.startswith("space.parameters.lambda.experts: ")
    mixed = refused(
        make_space, method=["ties", "odd"], parameters={"weight": 1.0, "lambda": WEIGHT}
    )
    assert mixed.startswith("space.parameters.lambda: lambda is a number of each model in one")


@pytest.mark.parametrize(
    ("low", "high", "total", "expected"),
    [
        (
            0.0,
            0.2,
            1.0,
            "3 values of 0 to 0.2, one an expert, add up to 0.6 at most; expected high of at",
        ),
        (0.5, 1.0, 1.0, "add up to 1.5 at least; expected low of at most 0.3333, or another sum"),
        (0.0, 0.33, 1.0, "expected high of at least 0.3333"),
    ],
)
def test_a_sum_that_no_values_have_is_refused(make_space, low, high, total, expected):
    weight = {"low": low, "high": high, "sum": total}
    message = refused(make_space, experts=("a", "b", "c"), parameters={"weight": weight})
    assert message.startswith(f"space.parameters.weight.sum: found {total:g}, but 3 values of")
    assert expected in message
    weight |= {"low": 0.1, "high": 0.2, "sum": 0.3}  # 3 · 0.1 is a little more than 0.3
    assert make_space(
        method="ties", experts=("a", "b", "c"), parameters={"weight": weight}
    ).distributions


def test_subsets_need_a_weight_and_a_choice(make_space):
    t = {"t": WEIGHT}
    assert refused(make_space, method="slerp", parameters=t, subsets=True).startswith(
        "space.subsets: an expert is left out by weight 0, and slerp has no weight"
    )
    assert refused(make_space, experts=("a",), subsets=True).startswith(
        "space.subsets: one expert always takes part"
    )
