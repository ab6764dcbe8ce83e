"""mergekit 0.1.5 as an oracle, and shortcuts to merge in memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from evomerge.candidate import Recipe, dumps
from evomerge.merge import check_family, merged_tensors, open_checkpoint

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def mergekit(tmp_path: Path) -> Callable[[Recipe], Tensors]:
    """Write the recipe to a file and let mergekit merge it to disk, as `mergekit-yaml` does."""

    def run(recipe: Recipe) -> Tensors:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mergekit's own
            from mergekit.config import MergeConfiguration
            from mergekit.merge import run_merge
            from mergekit.options import MergeOptions

            text = dumps(recipe)
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
