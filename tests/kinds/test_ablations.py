"""What is left of candidates without a part, merged for real."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from evomerge.candidate import Coefficients, Merge, PathStep, Stack
from evomerge.candidate.ablation import Ablations
from evomerge.candidate.ensemble import Ensemble, Mix
from evomerge.candidate.experts import without_expert
from evomerge.kinds import kind_of
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.engine import merged_tensors
from tests.conftest import Family

GROUPS = ((0, 1), (1, 4))
COMPONENTS = ("self_attn", "mlp")


@pytest.fixture(scope="module")
def checkpoints(llama_family: Family):
    return {name: open_checkpoint(name) for name in llama_family.models}


def merge_of(family: Family, method: str, *, weights=(0.5, 0.8, -0.3), **settings) -> Merge:
    table = tuple(
        tuple(tuple(w * (1 + g + c) for w in weights) for c in range(3)) for g in range(2)
    )
    base = None if method == "linear" else family.base
    return Merge(
        method,
        family.experts,
        base,
        groups=GROUPS,
        components=COMPONENTS,
        own={"weight": table},
        **settings,
    )


def tensors(merge, checkpoints):
    named = {name: checkpoints[name] for name in merge.model_names()}
    return dict(merged_tensors(merge, named))


def found(candidate, checkpoints) -> Ablations:
    return kind_of(candidate).ablations(candidate, checkpoints)


def coefficients(checkpoints) -> Coefficients:
    rng = np.random.default_rng(0)
    shapes = {name: one.shape for name, one in next(iter(checkpoints.values())).tensors.items()}
    chosen = {n: s for n, s in shapes.items() if "layers.1" in n or "layers.0.mlp" in n}
    return Coefficients(
        {n: rng.normal(size=(3, s[0])).astype(np.float32) for n, s in chosen.items()}
    )


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "linear"])
@pytest.mark.parametrize("fine", [False, True])
def test_weight_0_is_as_if_the_expert_were_not_there(method, fine, llama_family, checkpoints):
    density = {"density": 0.4} if method == "ties" else {}
    merge = merge_of(llama_family, method, fixed=density)
    if fine:
        merge = replace(merge, coefficients=coefficients(checkpoints))
    for one in found(merge, checkpoints).experts:
        gone = without_expert(merge, one.expert)
        expected, ours = tensors(gone, checkpoints), tensors(one.candidate, checkpoints)
        assert all(torch.equal(ours[name], expected[name]) for name in expected)
        assert any(
            not torch.equal(ours[name], t) for name, t in tensors(merge, checkpoints).items()
        )


@pytest.mark.parametrize(
    "method", ["task_arithmetic", "ties", "dare_linear", "dare_ties", "linear"]
)
def test_without_an_expert_of_weight_0_no_bit_changes(method, llama_family, checkpoints):
    merge = merge_of(llama_family, method, weights=(0.5, 0.0, 0.3))
    left = {one.expert: one.candidate for one in found(merge, checkpoints).experts}
    idle = llama_family.experts[1]
    assert left[idle] is merge
    gone = without_expert(merge, idle)
    if not method.startswith("dare"):  # whose masks are drawn by place
        expected = tensors(gone, checkpoints)
        assert all(torch.equal(expected[n], t) for n, t in tensors(left[idle], checkpoints).items())


@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
def test_a_group_has_the_weights_of_the_base(method, llama_family, checkpoints):
    merge = replace(merge_of(llama_family, method), coefficients=coefficients(checkpoints))
    groups = found(merge, checkpoints).groups
    assert [(one.layers, one.tensors) for one in groups] == [
        (layers, part) for layers in ("0-1", "1-4") for part in ("self_attn", "mlp", "rest")
    ]
    whole = tensors(merge, checkpoints)
    seen = set()
    for one in groups:
        ours = tensors(one.candidate, checkpoints)
        changed = {name for name in whole if not torch.equal(ours[name], whole[name])}
        for name in changed:
            assert torch.equal(ours[name], checkpoints[llama_family.base].tensor(name))
            if one.tensors != "rest":
                assert one.tensors in name
            if ".layers." in name:
                layer = int(name.split(".layers.")[1].split(".")[0])
                assert layer in range(*map(int, one.layers.split("-")))
        assert changed
        assert not changed & seen
        seen |= changed
    assert seen == set(whole)


def test_slerp_goes_to_the_base(llama_family, checkpoints):
    merge = Merge(
        "slerp", llama_family.experts[:1], llama_family.base, groups=GROUPS, fixed={"t": 0.4}
    )
    ablations = found(merge, checkpoints)
    (expert,) = ablations.experts
    base = checkpoints[llama_family.base]
    for name, tensor in tensors(expert.candidate, checkpoints).items():
        torch.testing.assert_close(tensor, base.tensor(name), rtol=1e-5, atol=1e-6)
    assert [one.layers for one in ablations.groups] == ["0-1", "1-4"]
    assert "which is the base" in ablations.how


def test_each_kind_says_what_is_done_and_what_is_not(llama_family, checkpoints):
    linear = found(merge_of(llama_family, "linear"), checkpoints)
    assert "their shares grow" in linear.how
    assert linear.groups == ()
    assert "no base" in linear.notes[0]
    summed = found(merge_of(llama_family, "linear", fixed={"normalize": False}), checkpoints)
    assert "the sum of the weights is smaller" in summed.how
    assert "election" in found(merge_of(llama_family, "ties"), checkpoints).how
    plain = found(merge_of(llama_family, "task_arithmetic"), checkpoints)
    assert plain.how == "An expert is left out by weight 0: it adds nothing."
    whole = Merge("ties", llama_family.experts, llama_family.base, fixed={"weight": 1.0})
    assert "groups cannot be left out" in found(whole, checkpoints).notes[0]
    alone = Merge("passthrough", llama_family.experts[:1])
    nothing = found(alone, checkpoints)
    assert (nothing.experts, nothing.groups) == ((), ())
    assert "passthrough takes no weights" in nothing.notes[0]
    members = {"one": alone, "base": Merge("passthrough", (llama_family.base,))}
    mixed = found(
        Ensemble(llama_family.base, members, mix=Mix({"one": 1.0, "base": 0.5})), checkpoints
    )
    assert [one.expert for one in mixed.experts] == ["one", "base"]
    assert "scaled to the sum 1" in mixed.how
    path = (PathStep("base", 0), PathStep("one", 1))
    stack = found(Stack(llama_family.base, members, path), checkpoints)
    assert [one.expert for one in stack.experts] == ["one"]
    assert "base's layers" in stack.how
