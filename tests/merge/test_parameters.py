"""Scopes, filters and gradients, by mergekit's rules and against mergekit itself."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.candidate import Conditional
from evomerge.errors import RecipeError
from evomerge.merge.methods import METHODS, Parameter
from evomerge.merge.parameters import checked, evaluate, resolve

NUMBER = Parameter("number", "a number")
BOOLEAN = Parameter("boolean", "a switch")
TENSOR = "model.layers.1.mlp.up_proj.weight"


def test_the_first_scope_with_a_value_wins():
    scopes = ({"weight": (Conditional(1, "self_attn"),)}, {"weight": 0.5}, {"weight": 0.1})
    values = resolve(METHODS["ties"], scopes, tensor=TENSOR, t=0, per_source=True)
    assert values == {"weight": 0.5, "density": 1.0}


def test_shared_and_own_parameters_are_kept_apart():
    scopes = ({"weight": 0.5, "normalize": False, "lambda": 2},)
    own = resolve(METHODS["ties"], scopes, tensor=TENSOR, t=0, per_source=True)
    shared = resolve(METHODS["ties"], scopes, tensor=TENSOR, t=0, per_source=False)
    assert own == {"weight": 0.5, "density": 1.0}
    switches = {"calibrate": False, "core_space": False, "importance": False}
    assert shared == {"normalize": False, "lambda": 2.0, "rescale": False, **switches}


def test_a_missing_required_value():
    options = {"tensor": TENSOR, "t": 0, "per_source": True, "model": "m"}
    with pytest.raises(RecipeError, match=r"ties needs a weight for model\.layers.* of m"):
        resolve(METHODS["ties"], ({},), **options)
    assert resolve(METHODS["ties"], ({},), **options, required=False) == {"density": 1.0}


@pytest.mark.parametrize(
    ("setting", "t", "expected"),
    [
        (3, 0.0, 3.0),
        ("1e-3", 0.0, 1e-3),
        ((0, 1), 0.25, 0.25),
        ((0, 1, 0), 0.75, 0.5),
        ((0, 1, 0), 1.0, 0.0),
        ((5,), 1.0, 5.0),
        ((), 0.5, None),
        ((Conditional(1, "attn"), Conditional(2, "mlp"), Conditional(3)), 0.0, 2.0),
        ((Conditional(1, "attn"), Conditional((3, 5), "*")), 0.5, 4.0),
        ((Conditional(1, "attn"),), 0.0, None),
        ((Conditional((), "mlp"), Conditional(3)), 0.0, None),
    ],
)
def test_settings(setting, t, expected):
    assert evaluate(setting, NUMBER, TENSOR, t) == expected


@pytest.mark.parametrize(
    ("setting", "t", "expected"),
    [
        (True, 0.0, True),
        ((True, False), 0.9, True),
        ((True, False), 1.0, False),
        ("no", 0.0, False),
    ],
)
def test_booleans_do_not_interpolate(setting, t, expected):
    assert evaluate(setting, BOOLEAN, TENSOR, t) is expected


finite = st.floats(-1e6, 1e6) | st.integers(-9, 9)
gradients = st.lists(finite, max_size=5).map(tuple)
conditionals = st.builds(
    Conditional, value=finite | gradients, filter=st.sampled_from([None, "*", "mlp", "attn", "1"])
)


@given(
    setting=finite | gradients | st.lists(conditionals, min_size=1, max_size=3).map(tuple),
    t=st.floats(0, 1),
)
def test_values_are_mergekits(setting, t):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mergekit's own
        from mergekit.config import ConditionalParameter, evaluate_setting

    theirs = setting
    if isinstance(setting, tuple):
        theirs = [
            ConditionalParameter(
                value=list(item.value) if isinstance(item.value, tuple) else item.value,
                filter=item.filter,
            )
            if isinstance(item, Conditional)
            else item
            for item in setting
        ]
    expected = evaluate_setting(TENSOR, theirs, t, validate=float)
    assert evaluate(setting, NUMBER, TENSOR, t) == expected


@pytest.mark.parametrize(
    ("value", "spec", "message"),
    [
        ("x", NUMBER, "found 'x', expected a number"),
        (float("nan"), NUMBER, "expected a finite number"),
        ("inf", NUMBER, "expected a finite number"),
        (1.5, Parameter("number", "", low=0, high=1), "a number from 0 to 1"),
        (-1, Parameter("number", "", low=0), "a number of at least 0"),
        (2, Parameter("number", "", high=1), "a number of at most 1"),
        (2, BOOLEAN, "found 2, expected true or false"),
        ("maybe", BOOLEAN, "found 'maybe', expected true or false"),
    ],
)
def test_wrong_values(value, spec, message):
    with pytest.raises(RecipeError, match=message):
        checked(value, spec)
