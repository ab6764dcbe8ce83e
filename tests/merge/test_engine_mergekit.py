"""Our engine against mergekit 0.1.5, on whole models."""

from __future__ import annotations

import pytest
import torch

from evomerge.candidate import Conditional, Recipe, Slice, Source
from evomerge.merge.checkpoint import open_checkpoint


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "ties"])
@pytest.mark.parametrize("gradient", [False, True], ids=["filters", "gradients"])
def test_agrees_with_mergekit(method, gradient, family, mergekit, ours, assert_agree, over_models):
    recipe = over_models(family, method, gradient=gradient)
    assert_agree(ours(recipe), mergekit(recipe))


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "ties"])
def test_agrees_with_mergekit_by_slices(method, family, mergekit, ours, assert_agree, over_slices):
    recipe = over_slices(family, method)
    assert_agree(ours(recipe), mergekit(recipe))


@pytest.mark.parametrize(
    ("method", "shared"),
    [
        ("linear", {"normalize": False}),
        ("task_arithmetic", {"normalize": True, "lambda": 0.7}),
        ("ties", {"normalize": False, "lambda": 1.3, "int8_mask": True}),
        ("ties", {"rescale": True}),
        ("ties", {"lambda": (Conditional(0.5, "mlp"), Conditional((0.2, 1.4)))}),
    ],
)
def test_agrees_with_mergekit_on_shared_parameters(
    method, shared, family, mergekit, ours, assert_agree, over_models
):
    recipe = over_models(family, method, shared=shared)
    assert_agree(ours(recipe), mergekit(recipe))


@pytest.mark.parametrize("t", [0.3, (0.0, 0.5, 1.0), (Conditional(0.2, "mlp"), Conditional(0.8))])
def test_slerp_agrees_with_mergekit(t, family, mergekit, ours, assert_agree):
    recipe = Recipe(
        method="slerp",
        models=(Source(family.base), Source(family.experts[0])),
        base_model=family.base,
        parameters={"t": t},
        dtype="float32",
    )
    assert_agree(ours(recipe), mergekit(recipe))


def test_stacked_layers_agree_with_mergekit(llama_family, mergekit, ours, assert_agree):
    recipe = Recipe(
        method="passthrough",
        slices=(
            Slice((Source(llama_family.base, (0, 3)),)),
            Slice(
                (Source(llama_family.experts[0], (1, 4), {"scale": (Conditional(0.5, "o_proj"),)}),)
            ),
        ),
        dtype="float32",
    )
    assert_agree(ours(recipe), mergekit(recipe))


@pytest.mark.parametrize("ends", ["last", "first", "both"])
def test_slices_of_no_layers_pick_what_stands_outside(
    ends, llama_family, mergekit, ours, assert_agree
):
    base, one, two = llama_family.base, *llama_family.experts[:2]
    slices = [Slice((Source(base, (0, 3)),)), Slice((Source(one, (3, 4)),))]
    if ends in ("first", "both"):
        slices.insert(0, Slice((Source(one, (0, 0)),)))
    if ends in ("last", "both"):
        slices.append(Slice((Source(two, (4, 4)),)))
    recipe = Recipe(method="passthrough", slices=tuple(slices), dtype="float32")
    merged = ours(recipe)
    assert_agree(merged, mergekit(recipe))
    origin = {"last": two, "first": one, "both": two}[ends]
    norm = open_checkpoint(origin).tensor("model.norm.weight")
    assert torch.equal(merged["model.norm.weight"], norm)


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_dare_agrees_with_mergekit_in_distribution(method, llama_family, mergekit, ours):
    """mergekit draws other masks; kept share and norms are the same, per tensor."""
    recipe = Recipe(
        method=method,
        models=(Source(llama_family.experts[0], parameters={"weight": 0.8, "density": 0.3}),),
        base_model=llama_family.base,
        dtype="float32",
    )
    theirs, mine = mergekit(recipe), ours(recipe)
    base = open_checkpoint(llama_family.base)
    assert set(theirs) == set(mine)
    for name in mine:
        a, b = (tensors[name] - base.tensor(name) for tensors in (mine, theirs))
        spread = 6 * (0.3 * 0.7 / a.numel()) ** 0.5
        assert abs((a != 0).float().mean() - (b != 0).float().mean()) < spread, name
        assert a.abs().sum().item() == pytest.approx(b.abs().sum().item(), rel=1e-3), name
