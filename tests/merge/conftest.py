"""mergekit 0.1.5 as an oracle, shortcuts to merge in memory, and recipes of many settings."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from evomerge.candidate import Conditional, Recipe, Slice, Source, dumps
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.engine import merged_tensors
from evomerge.merge.family import check_family
from tests.merge.vocabularies import models

FAMILIES = ("llama_family", "qwen2_family")
COMPONENTS = ("self_attn", "mlp", None)
Tensors = dict[str, torch.Tensor]
__all__ = ["models"]


@pytest.fixture
def mergekit(tmp_path: Path) -> Callable[[Recipe | str], Tensors]:
    """Let mergekit merge a recipe, or the text of a file, to disk, as `mergekit-yaml` does."""

    def run(recipe: Recipe | str) -> Tensors:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mergekit's own
            from mergekit.config import MergeConfiguration
            from mergekit.merge import run_merge
            from mergekit.options import MergeOptions

            text = recipe if isinstance(recipe, str) else dumps(recipe)
            config = MergeConfiguration.model_validate(yaml.safe_load(text))
            out = tmp_path / "mergekit"
            options = MergeOptions(device="cpu", quiet=True, random_seed=0, write_threads=1)
            run_merge(config, str(out), options=options, config_source=text)
        tensors: Tensors = {}
        for file in out.glob("*.safetensors"):
            tensors |= load_file(file)
        return tensors

    return run


@pytest.fixture
def ours() -> Callable[[Recipe], Tensors]:
    """Merge in memory, as the disk does."""
    return merge_now


def merge_now(recipe: Recipe, **options: object) -> Tensors:
    checkpoints = {name: open_checkpoint(name) for name in recipe.model_names()}
    base, *experts = checkpoints.values()
    check_family(base, experts)
    return dict(merged_tensors(recipe, checkpoints, **options))


@pytest.fixture
def assert_agree() -> Callable[[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]], None]:
    """Every tensor of the one is in the other, to 1e-6 of its largest entry."""

    def check(ours: Mapping[str, torch.Tensor], oracle: Mapping[str, torch.Tensor]) -> None:
        assert set(ours) == set(oracle)
        for name, expected in oracle.items():
            assert ours[name].dtype == expected.dtype
            worst = (ours[name].double() - expected.double()).abs().max().item()
            assert worst <= 1e-6 * expected.abs().max().item(), f"{name}: {worst}"

    return check


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Any:
    """Each of the families that recipes are tried on."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def over_models() -> Callable[..., Recipe]:
    """A recipe over the whole models of a family, each with weights of its own."""

    def build(
        family: Any,
        method: str,
        *,
        gradient: bool = False,
        shared: Mapping[str, Any] | None = None,
    ) -> Recipe:
        rng = random.Random(7)
        models = family.experts if method != "linear" else family.models
        return Recipe(
            method=method,
            models=tuple(
                Source(model, parameters=parameters(method, rng, gradient=gradient))
                for model in models
            ),
            base_model=family.base,
            parameters=shared or {},
            dtype="float32",
        )

    return build


@pytest.fixture
def over_slices() -> Callable[..., Recipe]:
    """A recipe with one slice per half of the layers, the base a source of each."""

    def build(family: Any, method: str) -> Recipe:
        rng = random.Random(11)
        layers = open_checkpoint(family.base).config.num_hidden_layers
        halves = ((0, layers // 2), (layers // 2, layers))
        return Recipe(
            method=method,
            slices=tuple(
                Slice(
                    sources=tuple(
                        Source(model, half, parameters(method, rng)) for model in family.models
                    )
                )
                for half in halves
            ),
            base_model=family.base,
            dtype="float32",
        )

    return build


def parameters(method: str, rng: random.Random, *, gradient: bool = False) -> dict[str, Any]:
    if method == "linear":
        return {"weight": setting(rng, 0.1, 1.0, gradient=gradient)}
    found = {"weight": setting(rng, -0.3, 1.0, gradient=gradient)}
    if method == "ties":
        found["density"] = setting(rng, 0.1, 0.95, gradient=gradient)
    return found


def setting(
    rng: random.Random,
    low: float,
    high: float,
    *,
    gradient: bool = False,
    components: Sequence[str | None] = COMPONENTS,
) -> tuple[Conditional, ...]:
    """By component, and over the layers."""
    return tuple(
        Conditional(
            tuple(rng.uniform(low, high) for _ in range(3)) if gradient else rng.uniform(low, high),
            name,
        )
        for name in components
    )
