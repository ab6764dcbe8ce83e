"""Gradients of a live model: what they are, what they need, and what they leave behind."""

from __future__ import annotations

import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from evomerge.candidate import Coefficients, Conditional, Merge, Recipe, Slice, Source
from evomerge.errors import MergeError
from evomerge.merge import plan
from evomerge.merge.gradients import recomputed
from evomerge.merge.live import LiveModel
from evomerge.merge.methods import method

TOKENS = torch.arange(3, 23).view(2, 10)


def recipe_of(family, weights, name="task_arithmetic", **own):
    return Recipe(
        method=name,
        models=tuple(
            Source(model, parameters={"weight": weight, **own})
            for model, weight in zip(family.experts, weights, strict=True)
        ),
        base_model=family.base,
        dtype="float64",
    )


def wave(module):
    """A smooth number that depends on every parameter, and on each in another way."""
    return sum(
        (parameter * (1 + index)).sin().sum() for index, parameter in enumerate(module.parameters())
    )


def turned(module):
    """Another one, of embeddings and head under both of their names."""
    ends = module.get_input_embeddings().weight, module.get_output_embeddings().weight
    return (3 * ends[0]).cos().sum() + (ends[0] * ends[1]).sum()


def said(module):
    return module(TOKENS).logits.log_softmax(-1)[:, :, 5].mean()


@pytest.mark.parametrize("name", ["llama_family", "qwen2_family"])
def test_every_tensor_has_its_gradients(name, request):
    """The sum over tensors is the gradient by a weight that holds for all of them."""
    family = request.getfixturevalue(name)
    live = LiveModel(family.models, dtype="float64")
    weights = (0.3, 0.0, 0.8)
    with live.gradients(recipe_of(family, weights)) as tape:
        wave(live.module).backward()
    found = tape.gradients()
    assert set(found) == {
        name
        for name, _ in live.module.named_parameters()  # a tied head under its first name only
    }
    for source in range(3):
        total = sum(each.own["weight"][source] for each in found.values())
        values = []
        for step in (1e-6, -1e-6):
            moved = [w + step * (index == source) for index, w in enumerate(weights)]
            live.write(recipe_of(family, moved))
            values.append(float(wave(live.module)))
        assert total == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)
    assert {each.models for each in found.values()} == {(*family.experts, family.base)}
    assert all(each.own["weight"][3] == 0 for each in found.values())


ROWS = ("model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight")
METHODS = ("linear", "task_arithmetic", "ties", "dare_ties", "breadcrumbs", "della", "della_linear")


def merge_of(family, tables, name="task_arithmetic", **fixed):
    """A merge with a weight for each expert and component, and what its rows add."""
    weights = ((0.3, 0.2, 0.4), (0.1, 0.5, 0.2))
    takes = method(name)
    return Merge(
        name,
        family.experts,
        family.base if takes.needs_base else None,
        merges_base=takes.needs_base,
        components=("mlp",),
        own={"weight": (weights,)},
        fixed=fixed | ({"density": 0.6} if "density" in takes.parameters else {}),
        dtype="float64",
        coefficients=Coefficients(tables),
    )


def tables_of(live, family, names=ROWS):
    generator = np.random.default_rng(3)
    shapes = {name: (len(family.experts), len(live.module.state_dict()[name])) for name in names}
    return {
        name: (0.1 * generator.standard_normal(shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("normalize", [False, True])
def test_rows_have_gradients_of_their_own(name, normalize, qwen2_family):
    """Some rows' weights against central differences; all of them sum to the groups'."""
    live = LiveModel(qwen2_family.models, dtype="float64")
    check_rows(live, qwen2_family, name, normalize=normalize)


def check_rows(live, family, name="task_arithmetic", **fixed):
    tables = tables_of(live, family)
    merge = merge_of(family, tables, name, **fixed)
    with live.gradients(merge, rows=True) as tape:
        wave(live.module).backward()
        turned(live.module).backward()
    by_row, by_number = tape.by_row(merge), tape.by_number(merge)
    assert set(by_row) == {name for name, _ in live.module.named_parameters()}
    sums = np.zeros((2, 3))
    for tensor, found in by_row.items():
        assert found.dtype == np.float32
        assert found.shape == (3, len(live.module.state_dict()[tensor]))
        sums[0 if "mlp" in tensor else 1] += found.sum(1, dtype=np.float64)
    assert np.array(by_number["weight"])[0] == pytest.approx(sums, rel=1e-4, abs=1e-5)
    for tensor, table in tables.items():
        for expert, row in ((0, 5), (2, 7)):
            values, steps = [], []
            for step in (2.0**-17, -(2.0**-17)):
                moved = table.copy()
                moved[expert, row] += step
                steps.append(float(moved[expert, row]))
                live.write(merge_of(family, tables | {tensor: moved}, name, **fixed))
                values.append(float(wave(live.module) + turned(live.module)))
            expected = (values[0] - values[1]) / (steps[0] - steps[1])
            assert by_row[tensor][expert, row] == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_gradients_by_row_are_taken_where_they_are_wanted(llama_family):
    live = LiveModel(llama_family.models, dtype="float64")
    merge = replace(merge_of(llama_family, {}), coefficients=None)
    with live.gradients(merge) as tape:
        said(live.module).backward()
    assert tape.by_row(merge) == {}
    plain = tape.by_number(merge)
    with live.gradients(merge, rows=True) as tape:
        said(live.module).backward()
    assert np.array(tape.by_number(merge)["weight"]) == pytest.approx(
        np.array(plain["weight"]), rel=1e-9
    )
    bare = replace(
        merge, method="slerp", experts=llama_family.experts[:1], own={}, fixed={"t": 0.5}
    )
    with pytest.raises(MergeError, match="slerp has no gradients by row"):
        live.gradients(bare, rows=True).__enter__()


def test_slices_are_told_apart(llama_family):
    def pieces(first, second):
        return Recipe(
            method="task_arithmetic",
            slices=tuple(
                Slice(
                    (
                        Source(llama_family.base, span),
                        Source(llama_family.experts[0], span, {"weight": weight}),
                    )
                )
                for span, weight in (((0, 1), first), ((1, 4), second))
            ),
            base_model=llama_family.base,
            dtype="float64",
        )

    live = LiveModel(llama_family.models, dtype="float64")
    with live.gradients(pieces(0.4, 0.7)) as tape:
        wave(live.module).backward()
    by_slice = [0.0, 0.0]
    for each in tape.gradients().values():
        assert each.models == (llama_family.base, llama_family.experts[0])
        by_slice[each.place[0]] += each.own["weight"][1]
    for number in (0, 1):
        values = []
        for step in (1e-6, -1e-6):
            moved = [0.4, 0.7]
            moved[number] += step
            live.write(pieces(*moved))
            values.append(float(wave(live.module)))
        assert by_slice[number] == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)
    names = {name for name, each in tape.gradients().items() if each.place == (1, 0)}
    assert "lm_head.weight" in names
    assert "model.embed_tokens.weight" not in names


def test_backward_passes_add_up_and_leave_nothing(llama_family):
    live = LiveModel(llama_family.models, dtype="float32")
    recipe = replace(recipe_of(llama_family, (0.3, 0.2, 0.1)), dtype="float32")
    with live.gradients(recipe) as tape:
        said(live.module).backward()
        assert all(parameter.grad is None for parameter in live.module.parameters())
    once = tape.gradients()
    with live.gradients(recipe) as tape:
        said(live.module).backward()
        (2 * said(live.module)).backward()
    for name, each in tape.gradients().items():
        assert each.own["weight"] == pytest.approx(
            [3 * value for value in once[name].own["weight"]], rel=1e-4, abs=1e-9
        )
    for parameter in live.module.parameters():
        assert not parameter.requires_grad
        assert not parameter._post_accumulate_grad_hooks
    assert not said(live.module).requires_grad
    assert not live.module.training


def test_nothing_is_left_behind_after_an_error(llama_family):
    live = LiveModel(llama_family.models, dtype="float32")
    recipe = replace(recipe_of(llama_family, (0.3, 0.2, 0.1)), dtype="float32")
    with pytest.raises(ZeroDivisionError), live.gradients(recipe, recompute=True):
        1 / 0  # noqa: B018
    assert not any(parameter.requires_grad for parameter in live.module.parameters())
    assert "forward" not in vars(live.module.model.layers[0])


def test_gradients_are_freed_one_by_one(qwen2_family, monkeypatch):
    """While one gradient is reduced, no other is kept: memory grows by a tensor, not by a model."""
    live = LiveModel(qwen2_family.models, dtype="float32")
    recipe = replace(recipe_of(qwen2_family, (0.3, 0.2, 0.1)), dtype="float32")
    plain = method("task_arithmetic").gradients
    seen = weakref.WeakSet()
    most = []

    def watched(group, gradient):
        held = sum(each.grad is not None for each in live.module.parameters())
        most.append((held, len(seen)))
        seen.add(gradient)
        return plain(group, gradient)

    with live.gradients(recipe) as tape:
        tape._of = watched
        said(live.module).backward()
    assert len(most) == len(list(live.module.parameters()))
    assert max(held for held, _ in most) == 0
    assert max(alive for _, alive in most) <= 1


def test_what_the_loss_does_not_depend_on_is_left_out(llama_family):
    live = LiveModel(llama_family.models, dtype="float32")
    recipe = replace(recipe_of(llama_family, (0.3, 0.2, 0.1)), dtype="float32")
    with live.gradients(recipe) as tape:
        live.module.model.norm.weight.sum().backward()
    assert set(tape.gradients()) == {"model.norm.weight"}


@pytest.mark.parametrize("name", ["llama_family", "qwen2_family"])
def test_recomputing_changes_no_gradient(name, request):
    family = request.getfixturevalue(name)
    live = LiveModel(family.models, dtype="float64")
    recipe = recipe_of(family, (0.3, 0.2, 0.1), "ties", density=0.5)
    found = []
    for recompute in (False, True):
        with live.gradients(recipe, recompute=recompute) as tape:
            said(live.module).backward()
        found.append(tape.gradients())
    assert found[0].keys() == found[1].keys()
    for tensor, each in found[0].items():
        for parameter, values in each.own.items():
            assert found[1][tensor].own[parameter] == pytest.approx(values, rel=1e-9, abs=1e-15)


def test_recomputed_layers_keep_what_enters_them_only():
    """And dropout stays off: nothing is put into training mode."""
    module = LlamaForCausalLM(
        LlamaConfig(vocab_size=30, hidden_size=32, intermediate_size=48, num_hidden_layers=3)
    ).eval()
    module.config.attention_dropout = 0.5
    plain = module.model.layers[1].forward

    def kept():
        count = []
        with torch.autograd.graph.saved_tensors_hooks(count.append, lambda each: each):
            value = said(module)
        return value.item(), len(count)

    expected, many = kept()
    with recomputed(module.model.layers):
        assert not any(each.training for each in module.modules())
        value, few = kept()
    assert value == expected
    assert few < many / 2
    assert module.model.layers[1].forward == plain
    with recomputed(module.model.layers), recomputed(module.model.layers):
        assert said(module).item() == expected
    assert "forward" not in vars(module.model.layers[1])


def test_weights_are_those_of_the_recipe(llama_family):
    live, other = (LiveModel(llama_family.models, dtype="float32") for _ in range(2))
    recipe = replace(
        recipe_of(llama_family, (0.3, (Conditional(0.9, "mlp"), Conditional(0.1)), 0.0)),
        dtype="float32",
    )
    other.write(recipe)
    with live.gradients(recipe):
        for name, tensor in live.module.state_dict().items():
            assert torch.equal(tensor, other.module.state_dict()[name])


def test_fused_experts_have_no_gradients(tmp_path, build_family):
    config = MixtralConfig(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=2,
        dtype="float32",
    )
    family = build_family(tmp_path, MixtralForCausalLM, config, experts=1)
    live = LiveModel(family.models, dtype="float32")
    before = {name: tensor.clone() for name, tensor in live.module.state_dict().items()}
    with pytest.raises(MergeError, match="gradients are not available"):
        live.gradients(recipe_of(family, (0.5,))).__enter__()
    for name, tensor in live.module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_method_without_gradients_is_refused(llama_family, monkeypatch):
    live = LiveModel(llama_family.models, dtype="float32")
    bare = replace(method("task_arithmetic"), gradients=None)
    monkeypatch.setattr(plan, "method", lambda name: bare)
    with pytest.raises(MergeError, match="task_arithmetic has no gradients"):
        live.gradients(recipe_of(llama_family, (0.3, 0.2, 0.1))).__enter__()
