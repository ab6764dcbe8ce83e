"""What holds for every merge of whole models."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evomerge.candidate import Conditional, Recipe, Slice, Source
from evomerge.errors import ModelError, RecipeError
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.engine import merged_tensors
from evomerge.merge.memory import Memory


def test_some_slice_must_have_a_layer(llama_family, ours):
    recipe = Recipe(method="passthrough", slices=(Slice((Source(llama_family.base, (2, 2)),)),))
    with pytest.raises(RecipeError, match="slices: found no layer in any slice"):
        ours(recipe)


def test_bfloat16_is_rounded_once(llama_family, ours, over_models):
    recipe = over_models(llama_family, "task_arithmetic")
    exact = ours(recipe)
    rounded = ours(Recipe(**{**vars(recipe), "dtype": "bfloat16"}))
    for name, tensor in rounded.items():
        assert torch.equal(tensor, exact[name].to(torch.bfloat16))


def test_float64_is_computed_in_float64(llama_family, ours, over_models):
    recipe = over_models(llama_family, "task_arithmetic")
    single, double = ours(recipe), ours(Recipe(**{**vars(recipe), "dtype": "float64"}))
    name = "model.layers.1.mlp.up_proj.weight"
    assert double[name].dtype == torch.float64
    assert not torch.equal(double[name], single[name].double())
    assert torch.allclose(double[name], single[name].double(), atol=1e-6)


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_dare_by_expectation_and_scale(method, llama_family, ours):
    """With one expert of weight 1: kept entries scaled to the L1 norm, the others those of the base."""
    density = 0.4
    name = "model.embed_tokens.weight"
    base = open_checkpoint(llama_family.base).tensor(name)
    delta = open_checkpoint(llama_family.experts[0]).tensor(name) - base
    total, draws = torch.zeros_like(base), 60
    for seed in range(draws):
        recipe = Recipe(
            method=method,
            models=(
                Source(llama_family.experts[0], parameters={"weight": 1.0, "density": density}),
            ),
            base_model=llama_family.base,
            seed=seed,
        )
        merged = ours(recipe)[name] - base
        kept = merged != 0
        share = kept.float().mean().item()
        assert abs(share - density) < 5 * (density * (1 - density) / base.numel()) ** 0.5
        assert merged.abs().sum().item() == pytest.approx(delta.abs().sum().item(), rel=1e-4)
        total += merged
    error = (total / draws - delta).norm() / delta.norm()
    expected = ((1 - density) / density / draws) ** 0.5  # of a Bernoulli mask scaled by 1/density
    assert error == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("method", ["task_arithmetic", "ties", "dare_linear", "dare_ties"])
def test_weight_0_is_the_base(method, family, ours):
    recipe = Recipe(
        method=method,
        models=tuple(Source(model) for model in family.experts),
        base_model=family.base,
        parameters={"weight": 0.0},
    )
    base = open_checkpoint(family.base)
    for name, tensor in ours(recipe).items():
        assert torch.equal(tensor, base.tensor(name))


@pytest.mark.parametrize(
    ("method", "same_as", "shared"),
    [
        ("dare_linear", "task_arithmetic", {}),
        ("dare_ties", "ties", {"normalize": False}),
    ],
)
def test_density_1_changes_nothing(method, same_as, shared, llama_family, ours):
    def recipe(name, extra):
        return Recipe(
            method=name,
            models=tuple(Source(model) for model in llama_family.experts),
            base_model=llama_family.base,
            parameters={"weight": 0.4, **shared, **extra},
        )

    masked, plain = ours(recipe(method, {"density": 1.0})), ours(recipe(same_as, {}))
    for name, tensor in plain.items():
        assert torch.equal(tensor, masked[name])


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    order=st.permutations(range(3)),
    weights=st.lists(st.floats(-0.5, 1.5), min_size=3, max_size=3),
    method=st.sampled_from(["linear", "task_arithmetic", "ties"]),
)
def test_the_order_of_experts_does_not_matter(order, weights, method, qwen2_family, ours):
    def recipe(indices):
        sources = tuple(
            Source(qwen2_family.experts[i], parameters={"weight": weights[i]}) for i in indices
        )
        shared = {"normalize": False} if method == "linear" else {"density": 0.5}
        base = None if method == "linear" else qwen2_family.base
        return Recipe(method=method, models=sources, base_model=base, parameters=shared)

    listed, permuted = ours(recipe(range(3))), ours(recipe(order))
    experts = [open_checkpoint(model) for model in qwen2_family.experts]
    for name, tensor in listed.items():
        # A sum in another order may elect the other sign where it is 0 but for rounding (1.3 of a thousand
        # entries, with some weights), and terms that cancel leave the rounding of the inputs.
        scale = max(float(expert.tensor(name).abs().max()) for expert in experts)
        differs = (tensor - permuted[name]).abs() > 1e-6 * scale
        assert differs.float().mean() < 1e-2


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_same_seed_same_bytes_and_another_seed_others(method, llama_family, ours):
    recipe = Recipe(
        method=method,
        models=tuple(Source(model) for model in llama_family.experts),
        base_model=llama_family.base,
        parameters={"weight": 0.5, "density": 0.5},
        seed=3,
    )
    first, second, other = ours(recipe), ours(recipe), ours(recipe.with_seed(4))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(
        torch.equal(first[name], other[name]) for name in first if first[name].numel() > 64
    )


@pytest.mark.parametrize(
    "method", ["linear", "task_arithmetic", "ties", "dare_linear", "dare_ties"]
)
@pytest.mark.parametrize("budget", [50_000, 10**9])
def test_what_is_kept_in_memory_changes_no_bit(method, budget, llama_family):
    recipe = Recipe(
        method=method,
        models=tuple(Source(model) for model in llama_family.models),
        base_model=llama_family.base,
        parameters={"weight": 0.4} | ({} if method == "linear" else {"density": 0.37}),
    )
    checkpoints = {name: open_checkpoint(name) for name in llama_family.models}
    memory = Memory(budget)
    fresh = dict(merged_tensors(recipe, checkpoints))
    for _ in range(2):
        kept = dict(merged_tensors(recipe, checkpoints, memory=memory))
        assert all(torch.equal(kept[name], fresh[name]) for name in fresh)
    assert 0 < memory.used <= budget or method == "linear"


def test_the_number_of_threads_changes_no_bit(llama_family, ours, over_models):
    recipe = over_models(llama_family, "ties", gradient=True)
    alone = ours(recipe)
    torch.set_num_threads(2)
    try:
        together = ours(recipe)
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(alone[name], together[name]) for name in alone)


def test_inputs_are_never_written_into(llama_family, ours):
    before = {n: open_checkpoint(llama_family.base).tensor(n).clone() for n in ("lm_head.weight",)}
    for method in ("linear", "task_arithmetic", "ties", "dare_ties"):
        shared = {"weight": 0.5} | (
            {} if method == "linear" else {"density": 0.5, "normalize": True}
        )
        models = tuple(Source(model) for model in llama_family.models)
        ours(Recipe(method=method, models=models, base_model=llama_family.base, parameters=shared))
    assert torch.equal(
        open_checkpoint(llama_family.base).tensor("lm_head.weight"), before["lm_head.weight"]
    )


def test_the_base_is_appended_as_an_ordinary_input_of_linear(llama_family, ours):
    recipe = Recipe(
        method="linear",
        models=(Source(llama_family.experts[0]),),
        base_model=llama_family.base,
        parameters={"weight": 1.0},
    )
    name = "lm_head.weight"
    parents = [
        open_checkpoint(m).tensor(name) for m in (llama_family.base, llama_family.experts[0])
    ]
    assert torch.allclose(ours(recipe)[name], (parents[0] + parents[1]) / 2, atol=1e-7)


def test_a_missing_weight_is_named(llama_family, ours):
    recipe = Recipe(
        method="task_arithmetic",
        models=(
            Source(llama_family.experts[0], parameters={"weight": (Conditional(1.0, "mlp"),)}),
        ),
        base_model=llama_family.base,
    )
    with pytest.raises(RecipeError, match=r"needs a weight for model\.embed_tokens\.weight"):
        ours(recipe)


def test_buffers_of_whole_numbers_are_copied_or_refused(tmp_path, ours):
    from safetensors.torch import save_file

    folders = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "config.json").write_text(
            '{"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 4,'
            ' "num_attention_heads": 1}',
            encoding="utf-8",
        )
        save_file(
            {
                "model.layers.0.w.weight": torch.full((2, 2), float(number)),
                "model.layers.0.steps": torch.tensor([5]),
                "model.other": torch.tensor([number]),
            },
            folder / "model.safetensors",
        )
        folders.append(str(folder))
    recipe = Recipe(
        method="linear",
        models=tuple(Source(folder) for folder in folders),
        parameters={"weight": 1.0},
        dtype="bfloat16",
    )
    checkpoints = {name: open_checkpoint(name) for name in folders}
    tensors, found = merged_tensors(recipe, checkpoints), {}
    with pytest.raises(ModelError, match=r"model\.other holds whole numbers that differ"):
        found.update(tensors)
    assert torch.equal(found["model.layers.0.steps"], torch.tensor([5]))
    assert found["model.layers.0.w.weight"].dtype == torch.bfloat16


def as_it_is(family):
    """Recipes whose result is, in part or whole, an input as it stands in its file."""
    base, expert = family.base, family.experts[0]
    repeated = Recipe(
        method="passthrough",
        slices=(Slice((Source(expert, (0, 2)),)), Slice((Source(expert, (1, 2)),))),
        dtype="float32",
    )
    return {
        "repeated": repeated,
        "no weight": Recipe(
            method="ties",
            models=(Source(expert, parameters={"weight": 0.0, "density": 0.5}),),
            base_model=base,
            dtype="float32",
        ),
        "repeated, no weight": Recipe(
            method="task_arithmetic",
            slices=tuple(
                Slice((Source(base, part), Source(expert, part, {"weight": 0.0})))
                for part in ((0, 2), (0, 2))
            ),
            base_model=base,
            dtype="float32",
        ),
        "linear": Recipe(
            method="linear",
            models=(Source(expert, parameters={"weight": 1.0}),),
            dtype="float32",
        ),
    }


@pytest.mark.parametrize("name", ["repeated", "no weight", "repeated, no weight", "linear"])
@pytest.mark.parametrize("budget", [0, 10**9])
def test_no_result_shares_memory(name, budget, llama_family):
    """Neither with an input (to write into it must not change the next merge) nor with another result."""
    recipe = as_it_is(llama_family)[name]
    checkpoints = {model: open_checkpoint(model) for model in recipe.model_names()}
    memory = Memory(budget)
    first = dict(merged_tensors(recipe, checkpoints, memory=memory))
    expected = {key: tensor.clone() for key, tensor in first.items()}
    storages = {tensor.untyped_storage().data_ptr() for tensor in first.values()}
    assert len(storages) == len(first)
    for tensor in first.values():
        tensor.fill_(7.0)
    again = dict(merged_tensors(recipe, checkpoints, memory=memory))
    assert all(torch.equal(again[key], tensor) for key, tensor in expected.items())
