from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from evomerge.candidate import Mixture
from evomerge.combine.gates import Lesson, fit_gates, solve
from evomerge.combine.mixture import ResidentMixtures
from evomerge.errors import MergeError
from evomerge.merge.live import LiveModel
from tests.combine.mixtures import mixture_of
from tests.conftest import Family

Families = Callable[[str], Family]


def lessons(count: int = 30, seed: int = 0) -> list[Lesson]:
    """Prompts of three kinds, of unlike lengths, each with its own letters."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        kind = number % 3
        letters = range(20 + 30 * kind, 40 + 30 * kind)
        tokens = tuple(chance.choice(letters) for _ in range(chance.randint(3, 20)))
        found.append(Lesson(tokens, tuple(float(kind == one) for one in range(3))))
    return found


def module_of(family: Family, *, top_k: int = 2) -> tuple[Any, Mixture]:
    live = LiveModel(family.models, dtype="float32", resident_bytes=0)
    candidate = replace(mixture_of(family, top_k=top_k), fit=None)
    return ResidentMixtures(live).write(*candidate.recipe()), candidate


@torch.no_grad()
def read_by_routers(module: Any, tokens: tuple[int, ...]) -> list[np.ndarray[Any, Any]]:
    """Return what each router reads of one prompt alone, by the gates' own inputs."""
    read: list[torch.Tensor] = []
    handles = [
        layer.mlp.gate.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
        for layer in module.model.layers
    ]
    module(input_ids=torch.tensor([tokens]))
    for handle in handles:
        handle.remove()
    return [each.reshape(len(tokens), -1).double().numpy() for each in read]


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_gates_are_ridge_regressions_on_what_the_routers_of_the_mixture_read(
    architecture: str, families: Families
) -> None:
    """scikit-learn on the inputs of each prompt alone, with all gates in place; no padding, no bias."""
    module, _ = module_of(families(architecture))
    taught, ridge = lessons(), 0.05
    gates = fit_gates(module, taught, temperature=0.5, ridge=ridge, batch_tokens=64)
    layers = len(module.model.layers)
    inputs = [read_by_routers(module, one.tokens) for one in taught]
    for layer in range(layers):
        rows = np.concatenate([each[layer] for each in inputs])
        targets = np.concatenate([np.tile(one.targets, (len(one.tokens), 1)) for one in taught])
        weights = np.concatenate([np.full(len(one.tokens), 1 / len(one.tokens)) for one in taught])
        scale = (weights[:, None] * rows**2).sum() / rows.shape[1]
        oracle = Ridge(alpha=ridge * scale, fit_intercept=False, solver="cholesky")
        expected = oracle.fit(rows, targets, sample_weight=weights).coef_
        expected /= np.linalg.norm(expected, axis=1, keepdims=True) * 0.5
        found = gates.layer(layer)
        assert found is not None
        np.testing.assert_allclose(found, expected, atol=2e-4)
        assert np.array_equal(module.model.layers[layer].mlp.gate.weight.detach().numpy(), found)


def test_padding_and_batches_change_nothing(families: Families) -> None:
    module, _ = module_of(families("llama"))
    one, other = (fit_gates(module, lessons(), batch_tokens=size) for size in (1, 10_000))
    for name, table in one.tables.items():
        np.testing.assert_allclose(table, other.tables[name], atol=2e-4)


def test_prompts_that_differ_are_told_apart_and_so_are_others_of_their_kind(
    families: Families,
) -> None:
    module, _ = module_of(families("llama"))
    gates = fit_gates(module, lessons(60))
    assert len(gates.accuracy) == len(module.model.layers)
    assert min(gates.accuracy) > 0.75
    right = total = 0
    for one in lessons(30, seed=1):
        first = read_by_routers(module, one.tokens)[0] @ gates.tables["gate.0"].T
        right += int((first.argmax(axis=1) == np.argmax(one.targets)).sum())
        total += len(one.tokens)
    assert right / total > 0.75


def test_the_temperature_is_divided_out_of_the_gates(families: Families) -> None:
    """With one expert a token it changes no state, so that all layers see the same."""
    module, _ = module_of(families("llama"), top_k=1)
    one = fit_gates(module, lessons(), temperature=1.0)
    cold = fit_gates(module, lessons(), temperature=0.25)
    for layer in range(4):
        np.testing.assert_allclose(
            cold.tables[f"gate.{layer}"], 4 * one.tables[f"gate.{layer}"], rtol=1e-4, atol=1e-5
        )


def test_equally_good_experts_are_all_right(families: Families) -> None:
    module, _ = module_of(families("llama"))
    taught = [replace(one, targets=(1.0, 1.0, 1.0)) for one in lessons()]
    assert min(fit_gates(module, taught).accuracy) == 1.0


def test_a_column_of_zeros_stays_one() -> None:
    gram = torch.eye(3, dtype=torch.float64)
    cross = torch.tensor([[1.0, 0.0], [2.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    found = solve(gram, cross)
    assert found[:, 1].tolist() == [0.0, 0.0, 0.0]
    torch.testing.assert_close(found[:, 0], cross[:, 0] / 3)


def test_states_that_are_no_numbers_are_refused(families: Families) -> None:
    module, _ = module_of(families("llama"))
    weight = module.model.layers[1].input_layernorm.weight
    kept = weight.clone()
    weight.fill_(float("nan"))
    with pytest.raises(MergeError, match="the inputs of a router are NaN or infinite"):
        fit_gates(module, lessons())
    weight.copy_(kept)
