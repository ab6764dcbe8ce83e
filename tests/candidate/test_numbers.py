from __future__ import annotations

from dataclasses import replace
from itertools import repeat

import pytest

from evomerge.candidate import (
    Conditional,
    Recipe,
    Slice,
    Source,
    Vocabulary,
    parts,
    with_numbers,
)

EVERYTHING = Recipe(
    "ties",
    slices=(
        Slice(
            (
                Source("base", (0, 2)),
                Source("one", (0, 2), {"weight": 0.25, "density": (0.5, 0.75)}),
                Source(
                    "two",
                    (2, 4),
                    {
                        "weight": (
                            Conditional(0.1 + 0.2, "self_attn"),
                            Conditional((1.0, 2.0, 3.0), "mlp"),
                            Conditional(4, None),
                        ),
                        "sign": "sum",
                    },
                ),
            ),
            base_model="base",
            parameters={"t": 0.125},
        ),
    ),
    base_model="base",
    parameters={"normalize": True, "lambda": -0.0, "k": 3},
    dtype="float32",
    vocabulary=Vocabulary("union", {"<s>": {"source": "base"}}),
    seed=7,
)
NUMBERS = (0.25, 0.5, 0.75, 0.1 + 0.2, 1.0, 2.0, 3.0, 0.125, -0.0)


def test_numbers_are_the_floats_in_the_order_in_which_they_stand() -> None:
    assert repr(parts(EVERYTHING).numbers) == repr(NUMBERS)
    assert parts(Recipe("linear", models=(Source("one", None, {"weight": 0.5}),))).numbers == (0.5,)


def test_other_numbers_make_another_recipe_of_the_same_form() -> None:
    zero = with_numbers(EVERYTHING, repeat(0.0))
    assert parts(zero).form == parts(EVERYTHING).form
    assert parts(zero).numbers == (0.0,) * len(NUMBERS)
    assert repr(with_numbers(zero, iter(NUMBERS))) == repr(EVERYTHING)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "dare_ties"},
        {"base_model": None},
        {"dtype": "bfloat16"},
        {"out_dtype": "float16"},
        {"vocabulary": None},
        {"vocabulary": Vocabulary("union", {"<s>": {"source": "one"}})},
        {"chat_template": "auto"},
        {"seed": 8},
        {"parameters": {"normalize": True, "lambda": -0.0, "k": 4}},
        {"parameters": {"normalize": 1, "lambda": -0.0, "k": 3}},
        {"parameters": {"normalize": True, "lambda": (-0.0,), "k": 3}},
        {"parameters": {"normalize": True, "other": -0.0, "k": 3}},
        {"slices": (), "models": EVERYTHING.slices[0].sources},
        {"slices": (replace(EVERYTHING.slices[0], base_model=None),)},
        {"slices": (replace(EVERYTHING.slices[0], parameters={"t": (Conditional(0.125),)}),)},
        {"slices": (replace(EVERYTHING.slices[0], sources=EVERYTHING.slices[0].sources[:2]),)},
    ],
)
def test_whatever_else_differs_is_another_form(change: dict[str, object]) -> None:
    assert parts(replace(EVERYTHING, **change)).form != parts(EVERYTHING).form  # type: ignore[arg-type]
