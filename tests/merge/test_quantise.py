"""Quantised live weights are those of the saved merge that transformers loads quantised."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from evomerge.candidate import Recipe, Source
from evomerge.errors import MergeError, ModelError
from evomerge.merge import quantise
from evomerge.merge.live import LiveModel
from evomerge.merge.quantise import quantised_layers
from evomerge.merge.saving import save

pytest.importorskip("bitsandbytes")

TOKENS = torch.arange(3, 51).reshape(2, 24)
SCHEMES = ("nf4", "fp4", "int8")


@pytest.fixture(scope="module")
def whole_blocks(build_family, tmp_path_factory):
    """Rows of 64 and 128 numbers, as bitsandbytes' kernels for processors need them."""
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        dtype="float32",
    )
    return build_family(tmp_path_factory.mktemp("blocks"), LlamaForCausalLM, config, noise=0.05)


def configuration(scheme: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    if scheme == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type=scheme, bnb_4bit_compute_dtype=dtype
    )


def transformers_quantised(folder: Path, scheme: str, dtype: str):
    loaded = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, dtype),
        quantization_config=configuration(scheme, getattr(torch, dtype)),
        device_map={"": "cpu"},
    )
    for layer in loaded.modules():
        if hasattr(
            layer, "support_avx512bf16_for_cpu"
        ):  # whose products are bfloat16 whatever is asked
            layer.support_avx512bf16_for_cpu = False
    return loaded.eval()


@torch.no_grad()
def logits(module) -> torch.Tensor:
    return module(input_ids=TOKENS).logits


def recipe(family, weight: float, dtype: str = "float32") -> Recipe:
    sources = tuple(Source(model, parameters={"weight": weight}) for model in family.experts)
    return Recipe("task_arithmetic", sources, base_model=family.base, dtype=dtype)


def live_model(family, scheme: str, dtype: str = "float32") -> LiveModel:
    return LiveModel(family.models, dtype=dtype, quantise=scheme)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_is_written_is_what_transformers_loads(scheme, dtype, whole_blocks, tmp_path):
    live = live_model(whole_blocks, scheme, dtype)
    for weight in (0.9, 0.3):
        live.write(recipe(whole_blocks, weight, dtype))
    save(recipe(whole_blocks, 0.3, dtype), tmp_path / "out")
    loaded = transformers_quantised(tmp_path / "out", scheme, dtype)
    found, expected = live.module.state_dict(), loaded.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert found["model.layers.0.mlp.up_proj.weight"].dtype in (torch.uint8, torch.int8)
    assert found["lm_head.weight"].dtype == getattr(torch, dtype)
    assert torch.equal(logits(live.module), logits(loaded))


def test_layers_whose_files_are_transposed(build_family, tmp_path):
    config = GPT2Config(
        vocab_size=259, n_embd=64, n_layer=1, n_head=4, n_positions=64, dtype="float32"
    )
    family = build_family(tmp_path / "family", GPT2LMHeadModel, config)
    live = live_model(family, "nf4")
    live.write(recipe(family, 0.4))
    save(recipe(family, 0.4), tmp_path / "out")
    loaded = transformers_quantised(tmp_path / "out", "nf4", "float32")
    assert torch.equal(logits(live.module), logits(loaded))


def test_rows_that_are_not_whole_blocks(llama_family):
    """bitsandbytes' kernel for processors decodes them wrongly; here they are decoded by the definition."""
    live, plain = live_model(llama_family, "nf4"), LiveModel(llama_family.models, dtype="float32")
    for one in (live, plain):
        one.write(recipe(llama_family, 0.4))
    for name, layer in quantised_layers(live.module):
        own, state = layer.weight.data.flatten().int(), layer.weight.quant_state
        numbers = state.code[torch.stack([own >> 4, own & 15], 1).flatten().long()]
        decoded = numbers.view(-1, state.blocksize) * state.absmax[:, None]
        weight = plain.module.get_parameter(name)
        assert (decoded.view_as(weight) - weight).norm() < 0.11 * weight.norm()
        weight.copy_(decoded.view_as(weight))
    torch.testing.assert_close(logits(live.module), logits(plain.module))


def test_a_twin_is_written_alone(llama_family):
    live = live_model(llama_family, "nf4")
    live.write(recipe(llama_family, 0.4))
    before = logits(live.module)
    twin = live.twin()
    twin.write(recipe(llama_family, 1.0))
    assert torch.equal(logits(live.module), before)
    live.write(recipe(llama_family, 1.0))
    assert torch.equal(logits(live.module), logits(twin.module))


def test_what_needs_full_precision_is_refused(llama_family):
    live = live_model(llama_family, "int8")
    with pytest.raises(MergeError, match="gradients need weights in full precision"):
        live.gradients(recipe(llama_family, 0.4)).__enter__()
    with pytest.raises(MergeError, match="need weights in full precision"):
        live.load(live.module.config, {})


def test_experts_that_are_fused_at_loading_are_refused(build_family, tmp_path):
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
    family = build_family(tmp_path, MixtralForCausalLM, config)
    with pytest.raises(ModelError, match=r"nf4 is not possible: .* fused"):
        live_model(family, "nf4")


def test_without_bitsandbytes(llama_family, monkeypatch):
    monkeypatch.setattr(quantise, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"nf4 needs bitsandbytes.*evomerge\[quantised\]"):
        live_model(llama_family, "nf4")
