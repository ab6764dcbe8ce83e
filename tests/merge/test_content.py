"""Recipes of one content merge to the same tensors, others do not: the engine itself is the oracle."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from evomerge.candidate import Coefficients, Conditional, Recipe, Setting, Slice, Source
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.content import content
from evomerge.merge.engine import merged_tensors

Numbers = dict[str, Setting]


@pytest.fixture(scope="module")
def checkpoints(qwen2_family: Any) -> dict[str, Any]:
    return {name: open_checkpoint(name) for name in qwen2_family.models}


@pytest.fixture
def made(qwen2_family: Any) -> Any:
    """Recipes of one family: `made(method, numbers of each expert, ..., slices=..., **shared)`."""

    def make(
        method: str,
        *own: Numbers,
        base: bool = True,
        slices: bool = False,
        seed: int = 0,
        reverse: bool = False,
        **shared: Setting,
    ) -> Recipe:
        models = qwen2_family.experts[: len(own)]
        pairs = list(zip(models, own, strict=True))
        pairs = pairs[::-1] if reverse else pairs
        ancestor = qwen2_family.base if base else None
        if not slices:
            sources = tuple(Source(model, parameters=numbers) for model, numbers in pairs)
            return Recipe(
                method, sources, base_model=ancestor, parameters=shared, dtype="float32", seed=seed
            )
        pieces = []
        for layers in ((0, 1), (1, 2)):
            parents = [Source(qwen2_family.base, layers)] if base else []
            parents += [Source(model, layers, numbers) for model, numbers in pairs]
            pieces.append(Slice(tuple(parents)))
        return Recipe(
            method,
            slices=tuple(pieces),
            base_model=ancestor,
            parameters=shared,
            dtype="float32",
            seed=seed,
        )

    return make


def w(weight: float, **others: float) -> Numbers:
    return {"weight": weight, **others}


def rows_of(
    recipe: Recipe, even: float, odd: float, *, first: int = 0, every: bool = False
) -> Recipe:
    """Add to one expert's weight in the rows of one tensor, or of all."""
    names = open_checkpoint(recipe.models[0].model).tensors.items()
    tables = {}
    for name, header in names:
        if every or name.endswith("1.mlp.up_proj.weight"):
            table = np.zeros((2, header.shape[0]), np.float32)
            table[first, ::2], table[first, 1::2] = even, odd
            tables[name] = table
    return replace(recipe, coefficients=Coefficients(tables))


def families(made: Any) -> list[list[Recipe]]:
    """Recipes of one inner list are one model."""
    filtered: Numbers = {"weight": (Conditional(0.3, "mlp"), Conditional(0.3))}
    return [
        [
            made("task_arithmetic", w(0.3), w(0.3)),
            made("task_arithmetic", w(0.3), w(0.3), slices=True),
            made("task_arithmetic", filtered, w(0.3), w(0.0), slices=True, reverse=True),
            made("task_arithmetic", w(0.6), w(0.6), **{"lambda": 0.5}),
            made("dare_linear", w(0.3, density=1.0), w(0.3, density=1.0), seed=7),
        ],
        [
            made("linear", w(1.0), w(1.0), base=False),
            made("linear", w(0.4), w(0.4), base=False, slices=True),
            made("linear", w(0.5), w(0.5), base=False, normalize=False),
            made("task_arithmetic", w(0.5), w(0.5), slices=True),
            made("task_arithmetic", w(2.0), w(2.0), normalize=True),
        ],
        [
            made("passthrough", {}, base=False),
            made("task_arithmetic", w(1.0), w(0.0), slices=True),
            made("linear", w(3.0), base=False),
            made("slerp", {}, t=1.0),
        ],
        [
            made("task_arithmetic", w(0.0), w(-0.0)),
            made("slerp", {}, t=0.0),
        ],
        [
            made("ties", w(0.5, density=0.4), w(0.2, density=0.6)),
            made("ties", w(0.5, density=0.4), w(0.2, density=0.6), reverse=True),
            made("ties", w(0.5, density=0.4), w(0.2, density=0.6), w(0.0, density=0.1)),
        ],
        [made("ties", w(0.5, density=0.4), w(0.2, density=0.7))],
        [made("dare_linear", w(0.3, density=0.5), w(0.3, density=1.0), seed=1)],
        [made("dare_linear", w(0.3, density=0.5), w(0.3, density=1.0), seed=2)],
        [made("dare_ties", w(0.3, density=0.5), w(0.3, density=1.0), seed=2)],
        [
            rows_of(made("ties", w(0.25), w(0.2)), 0.125, 0.375, every=True),
            rows_of(made("ties", w(0.25), w(0.2), reverse=True), 0.125, 0.375, first=1, every=True),
            rows_of(made("ties", w(0.5), w(0.2)), -0.125, 0.125, every=True),
        ],
        [rows_of(made("ties", w(0.25), w(0.2)), 0.125, 0.25, every=True)],
        [rows_of(made("ties", w(0.25), w(0.2), normalize=False), 0.125, 0.375, every=True)],
        [rows_of(made("linear", w(1.0), w(1.0), base=False), 0.0, 0.5)],
        [rows_of(made("linear", w(2.0), w(2.0), base=False), 0.0, 0.5)],
        [rows_of(made("task_arithmetic", w(0.0), w(0.3)), 0.0, 0.5)],
        [
            made("task_arithmetic", w(0.7), w(0.3)),
            rows_of(made("task_arithmetic", w(0.7), w(0.3)), 0.0, 0.0),
            rows_of(made("task_arithmetic", w(0.7 - 0.25), w(0.3)), 0.25, 0.25, every=True),
        ],
        [made("slerp", {}, t=0.25)],
        [made("slerp", {}, t=0.75)],
        [made("task_arithmetic", {"weight": (Conditional(0.3, "mlp"), Conditional(0.2))}, w(0.3))],
    ]


def tensors(recipe: Recipe, checkpoints: Any) -> torch.Tensor:
    merged = dict(merged_tensors(recipe, checkpoints))
    return torch.cat([merged[name].flatten().double() for name in sorted(merged)])


def test_equal_content_is_equal_tensors_and_else_not(made: Any, checkpoints: Any) -> None:
    every = [(group, one) for group, several in enumerate(families(made)) for one in several]
    found = [(group, content(one, checkpoints), tensors(one, checkpoints)) for group, one in every]
    for (group, mine, merged), (other, theirs, too) in combinations(found, 2):
        same = bool(torch.allclose(merged, too, rtol=0, atol=1e-6))
        assert same is (group == other)
        assert (mine == theirs) is same


def test_the_dtype_is_part_of_it(made: Any, checkpoints: Any) -> None:
    one = made("linear", w(1.0), base=False)
    other = Recipe(one.method, one.models, dtype="bfloat16")
    assert content(one, checkpoints) != content(other, checkpoints)
