"""The live model: the same bits as the disk, for any recipe, in any order."""

from __future__ import annotations

import random

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from evomerge.candidate import Conditional, Recipe, Slice, Source
from evomerge.errors import MergeError, ModelError, RecipeError
from evomerge.merge.live import LiveModel
from evomerge.merge.methods import METHODS
from evomerge.merge.saving import save


def recipe_of(family, name, *, dtype="float32", seed=0):
    rng, method = random.Random(seed), METHODS[name]

    def own():
        takes = [key for key, spec in method.parameters.items() if spec.per_source]
        weight = (Conditional(rng.random(), "mlp"), Conditional((rng.random(), 1.0)))
        return {key: weight if key == "weight" else rng.random() for key in takes}

    models = family.experts if method.uses_base else family.models
    return Recipe(
        method=name,
        models=tuple(Source(model, parameters=own()) for model in models[: method.max_models]),
        base_model=family.base if method.uses_base else None,
        parameters={"t": 0.1 * rng.random()} if "t" in method.parameters else {},
        dtype=dtype,
        seed=seed,
    )


def same_bits(live, folder, dtype=torch.float32):
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).state_dict()
    assert loaded.keys() == live.module.state_dict().keys()
    for name, tensor in live.module.state_dict().items():
        assert torch.equal(tensor, loaded[name]), name


@pytest.mark.parametrize("name", ["llama_family", "qwen2_family"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_live_and_disk_are_equal_to_the_bit(name, dtype, request, tmp_path):
    family = request.getfixturevalue(name)
    live = LiveModel(family.models, dtype=dtype)
    for number, method in enumerate(METHODS):
        live.write(recipe_of(family, method, dtype=dtype, seed=50 + number))  # something before
        recipe = recipe_of(family, method, dtype=dtype, seed=number)
        live.write(recipe)
        out = tmp_path / method
        save(recipe, out)
        same_bits(live, out, getattr(torch, dtype))


def test_a_recipe_is_rounded_as_its_file_is(llama_family, tmp_path):
    live = LiveModel(llama_family.models, dtype="float32")
    recipe = recipe_of(llama_family, "ties", dtype="bfloat16")
    live.write(recipe)
    save(recipe, tmp_path / "out")
    same_bits(live, tmp_path / "out", torch.float32)


def test_what_was_written_before_leaves_no_trace(qwen2_family):
    one, other = (
        LiveModel(qwen2_family.models, dtype="float32", resident_bytes=b) for b in (0, 10**8)
    )
    for method in METHODS:
        other.write(recipe_of(qwen2_family, method, seed=9))
    recipe = recipe_of(qwen2_family, "dare_ties", seed=2)
    one.write(recipe)
    other.write(recipe)
    for name, tensor in one.module.state_dict().items():
        assert torch.equal(tensor, other.module.state_dict()[name])


def test_it_starts_as_the_base_and_scores_without_gradients(llama_family):
    live = LiveModel(llama_family.models, dtype="float32")
    base = load_file(f"{llama_family.base}/model.safetensors")
    for name, tensor in live.module.state_dict().items():
        assert torch.equal(tensor, base[name])
    assert not live.module.training
    assert not any(p.requires_grad for p in live.module.parameters())
    assert live.tokenizer.decode(live.tokenizer("héllo")["input_ids"]) == "héllo"


def test_a_tied_head_follows_the_embeddings(qwen2_family):
    live = LiveModel(qwen2_family.models, dtype="float32")
    live.write(recipe_of(qwen2_family, "task_arithmetic"))
    assert live.module.lm_head.weight.data_ptr() == live.module.model.embed_tokens.weight.data_ptr()


@pytest.mark.parametrize(
    ("config_class", "model_class", "extra"),
    [
        (MixtralConfig, MixtralForCausalLM, {"num_local_experts": 4}),
        (
            Qwen3MoeConfig,
            Qwen3MoeForCausalLM,
            {"num_experts": 4, "moe_intermediate_size": 24, "head_dim": 8},
        ),
    ],
)
def test_fused_experts_are_written_as_their_file_is_loaded(
    config_class, model_class, extra, tmp_path, build_family
):
    config = config_class(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_experts_per_tok=2,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        dtype="float32",
        **extra,
    )
    family = build_family(tmp_path, model_class, config, experts=2)
    live = LiveModel(family.models, dtype="float32")
    recipe = recipe_of(family, "ties")
    live.write(recipe)
    save(recipe, tmp_path / "out")
    same_bits(live, tmp_path / "out")
    stored = load_file(tmp_path / "out" / "model.safetensors")
    assert stored.keys() == load_file(f"{family.base}/model.safetensors").keys()


def test_errors(llama_family, qwen2_family):
    live = LiveModel(llama_family.models[:2], dtype="float32")
    with pytest.raises(RecipeError, match="is none of the models that were loaded"):
        live.write(recipe_of(llama_family, "task_arithmetic"))
    with pytest.raises(MergeError, match="makes 2 layers, the live model has 4"):
        live.write(
            Recipe(method="passthrough", slices=(Slice((Source(llama_family.base, (0, 2)),)),))
        )
    with pytest.raises(RecipeError, match="unknown method"):
        live.write(Recipe(method="tise", models=(Source(llama_family.base),)))
    with pytest.raises(ModelError, match="is a qwen2 model, the base"):
        LiveModel((llama_family.base, qwen2_family.base), dtype="float32")


def test_it_is_usable_after_impossible_maths(llama_family):
    live = LiveModel(llama_family.models, dtype="float32")
    weights = (Conditional(0.0, "down_proj"), Conditional(1.0))
    with pytest.raises(MergeError, match=r"down_proj.* sum to 0"):
        live.write(
            Recipe(
                method="linear",
                models=tuple(Source(model) for model in llama_family.models),
                parameters={"weight": weights},
            )
        )
    live.write(
        Recipe(method="linear", models=(Source(llama_family.base),), parameters={"weight": 1.0})
    )
    base = load_file(f"{llama_family.base}/model.safetensors")
    for name, tensor in live.module.state_dict().items():
        assert torch.equal(tensor, base[name])
