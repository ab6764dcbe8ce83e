"""Every method of mergekit 0.1.5's that is not drawn at random, against it on whole models."""

from __future__ import annotations

import random

import pytest
import torch

from evomerge.candidate import Recipe, Slice, Source
from evomerge.merge.checkpoint import open_checkpoint
from tests.merge.conftest import COMPONENTS, merge_now, setting

WEIGHT, DENSITY, GAMMA = (-0.3, 1.0), (0.1, 0.95), (0.005, 0.3)
CRUMBS = {"weight": WEIGHT, "density": DENSITY, "gamma": GAMMA}
SHARE = {"weight": (0.1, 1.0)}

# Method, number of experts, with a base, ranges of each model's numbers and of all models', fixed values.
CASES = {
    "breadcrumbs": ("breadcrumbs", 3, True, CRUMBS, {"lambda": (0.3, 1.2)}, {}),
    "breadcrumbs rescaled": (
        "breadcrumbs",
        3,
        True,
        CRUMBS,
        {},
        {"rescale": True, "normalize": True},
    ),
    "breadcrumbs_ties": ("breadcrumbs_ties", 3, True, CRUMBS, {}, {"int8_mask": True}),
    "breadcrumbs_ties normalised": ("breadcrumbs_ties", 2, True, CRUMBS, {}, {"normalize": True}),
    "nuslerp": ("nuslerp", 2, False, SHARE, {}, {}),
    "nuslerp of task vectors": ("nuslerp", 2, True, SHARE, {}, {}),
    "nuslerp beyond the ends": ("nuslerp", 2, True, {"weight": (-0.3, 1.0)}, {}, {}),
    "nuslerp along the last axis": ("nuslerp", 2, True, SHARE, {}, {"nuslerp_flatten": False}),
    "nuslerp along the first axis": (
        "nuslerp",
        2,
        False,
        SHARE,
        {},
        {"nuslerp_flatten": False, "nuslerp_row_wise": True},
    ),
    "multislerp": ("multislerp", 3, False, SHARE, {}, {}),
    "multislerp of task vectors": ("multislerp", 3, True, SHARE, {}, {}),
    "multislerp as weighted": ("multislerp", 2, True, SHARE, {}, {"normalize_weights": False}),
    "multislerp of one": ("multislerp", 1, True, SHARE, {}, {}),
    "multislerp with an eps": ("multislerp", 3, True, SHARE, {}, {"eps": 0.01}),
    "karcher": ("karcher", 3, False, {}, {}, {}),
    "karcher with the base": ("karcher", 2, True, {}, {}, {"max_iter": 2}),
    "karcher without a step": ("karcher", 3, False, {}, {}, {"max_iter": 0, "tol": 0.001}),
    "model_stock": ("model_stock", 3, True, {}, {}, {}),
    "model_stock of two": ("model_stock", 2, True, {}, {}, {"filter_wise": False}),
    "model_stock by row": ("model_stock", 3, True, {}, {}, {"filter_wise": True}),
    "nearswap": ("nearswap", 1, True, {}, {"t": (0.001, 0.02)}, {}),
    "sce": ("sce", 3, True, {}, {}, {}),
    "sce of few": ("sce", 3, True, {}, {"select_topk": (0.05, 0.9)}, {"int8_mask": True}),
    "ram": ("ram", 3, True, {}, {"epsilon": (0.0, 0.04)}, {}),
    "ramplus_tl": (
        "ramplus_tl",
        3,
        True,
        {},
        {"epsilon": (0.02, 0.04), "r": (0.1, 0.5), "alpha": (0.1, 0.8)},
        {},
    ),
    "ramplus_tl of one": ("ramplus_tl", 1, True, {}, {}, {}),
}


def recipe(family, method, experts, with_base, own, shared, fixed, form, *, components=COMPONENTS):
    rng = random.Random(7)
    gradient = form == "gradients"

    def drawn(ranges):
        return {
            name: setting(rng, *span, gradient=gradient, components=components)
            for name, span in ranges.items()
        }

    chosen = family.experts[:experts]
    base = family.base if with_base else None
    common = {"base_model": base, "dtype": "float32"}
    if form != "slices":
        sources = tuple(Source(model, parameters=drawn(own)) for model in chosen)
        return Recipe(method, sources, parameters={**fixed, **drawn(shared)}, **common)
    layers = open_checkpoint(family.base).config.num_hidden_layers
    slices = []
    for half in ((0, layers // 2), (layers // 2, layers)):
        sources = [Source(base, half)] if with_base else []
        sources += [Source(model, half, drawn(own)) for model in chosen]
        slices.append(Slice(tuple(sources), None, drawn(shared)))
    return Recipe(method, slices=tuple(slices), parameters=fixed, **common)


@pytest.mark.parametrize("form", ["filters", "gradients", "slices"])
@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_agrees_with_mergekit(case, form, family, mergekit, ours, assert_agree):
    merge = recipe(family, *case, form)
    assert_agree(ours(merge), mergekit(merge))


@pytest.mark.parametrize("method", ["della", "della_linear"])
def test_della_agrees_with_mergekit_in_distribution(method, llama_family, mergekit, ours):
    """mergekit draws other masks; by thirds of the ranks, kept share and L1 norm are the same."""
    own = {"weight": 0.8, "density": 0.4, "epsilon": 0.3}
    merge = Recipe(
        method,
        (Source(llama_family.experts[0], parameters=own),),
        base_model=llama_family.base,
        dtype="float32",
    )
    base, expert = (open_checkpoint(model) for model in llama_family.models[:2])
    weight = 1.0 if method == "della" else 0.8  # normalised by the weight
    counts = {who: [0.0] * 3 for who in ("ours", "theirs", "expected")}
    found = {"ours": ours(merge), "theirs": mergekit(merge)}
    for name in found["ours"]:
        delta = expert.tensor(name).double() - base.tensor(name).double()
        rows = delta.view(1, -1) if delta.ndim == 1 else delta
        ranks = rows.abs().argsort(1).argsort(1)
        thirds = ranks * 3 // rows.shape[1]
        probability = 0.1 + 0.6 * ranks / (rows.shape[1] - 1)
        for third in range(3):
            counts["expected"][third] += probability[thirds == third].sum().item()
        for who, tensors in found.items():
            merged = (tensors[name].double() - base.tensor(name).double()).view_as(rows)
            # Rescaled, a sparse task vector has the norm of the whole one.
            norm = merged.abs().sum().item()
            assert norm == pytest.approx(weight * delta.abs().sum().item(), rel=1e-3), name
            for third in range(3):
                counts[who][third] += ((merged != 0) & (thirds == third)).sum().item()
    for who in ("ours", "theirs"):
        for kept, expected in zip(counts[who], counts["expected"], strict=True):
            assert kept == pytest.approx(expected, rel=0.03), who


def test_della_with_a_density_of_1_agrees_with_mergekit(family, mergekit, ours, assert_agree):
    own = {"weight": (0.3, 1.0), "density": (1.0, 1.0)}
    merge = recipe(family, "della", 3, True, own, {}, {}, "filters")
    assert_agree(ours(merge), mergekit(merge))


def reference_fusion(base, expert):
    """In float64: importance, and the threshold from which the expert's entry is taken."""
    base, expert = base.double(), expert.double()
    p, q = (tensor.softmax(-1) + 1e-8 for tensor in (expert, base))
    importance = (expert - base).abs() * (p * (p / q).log()).sum(-1, keepdim=True)
    ordered = importance.view(-1).sort().values
    low, median, high = (ordered[int(q * (len(ordered) - 1))] for q in (0.25, 0.5, 0.75))
    return importance, median + 1.5 * (high - low)


def test_arcee_fusion_agrees_with_mergekit_off_the_threshold(family, mergekit):
    check_fusion(family, mergekit)


def check_fusion(family, mergekit):
    """mergekit's divergences are float32, so that entries at its threshold may fall on the other side.

    Ours are what float64 says; of mergekit's entries up to 0.1 % differ, all within 1 % of the threshold.
    """
    merge = recipe(family, "arcee_fusion", 1, True, {}, {}, {}, "filters")
    mine, theirs = merge_now(merge), mergekit(merge)
    base, expert = (open_checkpoint(model) for model in family.models[:2])
    assert set(mine) == set(theirs)
    differing = total = 0
    for name, merged in mine.items():
        old, new = base.tensor(name), expert.tensor(name)
        importance, threshold = reference_fusion(old, new)
        near = (importance - threshold).abs() <= 1e-6 * threshold
        expected = torch.where(importance >= threshold, new, old)
        assert torch.allclose(merged[~near], expected[~near], atol=1e-7), name
        others = (merged - theirs[name]).abs() > 1e-6 * old.abs().max()
        apart = ((importance - threshold) / threshold).abs()[others]
        assert not len(apart) or apart.max() < 0.01, name
        differing += int(others.sum())
        total += merged.numel()
    assert differing <= 0.001 * total
