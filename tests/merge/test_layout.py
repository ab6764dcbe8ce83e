"""Where tensors stand, read from their names, for architectures of all kinds."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM as Auto
from transformers import (
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    MixtralConfig,
    OPTConfig,
)

from evomerge.errors import ModelError
from evomerge.merge.checkpoint import Checkpoint, open_checkpoint
from evomerge.merge.files import TensorHeader
from evomerge.merge.layout import Layout

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}


def layout(names, config):
    headers = {name: TensorHeader((1,), torch.float32) for name in sorted(names)}
    return Layout.of(Checkpoint("model", ".", config, headers, lambda _: torch.zeros(1)))


@pytest.mark.parametrize(
    ("config", "prefix", "first", "last"),
    [
        (
            GPTNeoXConfig(**SMALL, intermediate_size=32),
            "gpt_neox.layers.",
            {"embed_in"},
            {"final_layer_norm"},
        ),
        (
            GPT2Config(vocab_size=64, n_embd=32, n_layer=3, n_head=4),
            "transformer.h.",
            {"wte", "wpe"},
            {"ln_f"},
        ),
        (
            BloomConfig(vocab_size=64, hidden_size=32, n_layer=3, n_head=4),
            "transformer.h.",
            {"word_embeddings", "word_embeddings_layernorm"},
            {"ln_f"},
        ),
        (FalconConfig(**SMALL), "transformer.h.", {"word_embeddings"}, {"ln_f"}),
        (
            OPTConfig(**SMALL, ffn_dim=32, word_embed_proj_dim=32),
            "model.decoder.layers.",
            {"embed_tokens", "embed_positions"},
            {"final_layer_norm"},
        ),
        (
            Gemma2Config(**SMALL, intermediate_size=32, head_dim=8, num_key_value_heads=2),
            "model.layers.",
            {"embed_tokens"},
            {"norm"},
        ),
    ],
    ids=lambda value: getattr(value, "model_type", ""),
)
def test_architectures(config, prefix, first, last):
    with torch.device("meta"):
        names = set(Auto.from_config(config).state_dict())
    found = layout(names, config)
    assert found.prefix == prefix
    assert found.num_layers == 3

    def modules(tensors):
        return {name.rsplit(".", 1)[0].rsplit(".", 1)[-1] for name in tensors}

    assert modules(found.first) == first
    assert modules(found.last) - {"lm_head"} == last
    for name in names:
        inside = found.layer_of(name)
        assert (inside is None) == (name in found.first or name in found.last or "lm_head" in name)
        if inside is not None:
            assert name == found.name(inside, name.removeprefix(f"{prefix}{inside}."))


def test_experts_do_not_pass_for_layers():
    names = [
        f"model.layers.{layer}.block_sparse_moe.experts.{expert}.w{part}.weight"
        for layer in range(2)
        for expert in range(2)
        for part in (1, 2, 3)
    ]
    found = layout(names, MixtralConfig(num_hidden_layers=2))
    assert found.prefix == "model.layers."
    assert found.layer_of(names[-1]) == 1
    assert len(found.layers[0]) == 6


def test_a_vision_tower_of_the_same_height_is_no_stack_of_the_language_model():
    config = SimpleNamespace(
        get_text_config=lambda: SimpleNamespace(num_hidden_layers=2, tie_word_embeddings=False)
    )
    names = [f"model.text.layers.{n}.{w}" for n in range(2) for w in ("q", "k", "v")]
    names += [f"vision.blocks.{n}.w" for n in range(2)]
    found = layout(names, config)
    assert found.prefix == "model.text.layers."
    assert found.layer_of("vision.blocks.0.w") is None


def test_every_tensor_has_its_place(llama_family):
    checkpoint = open_checkpoint(llama_family.base)
    found = Layout.of(checkpoint)
    layers = {found.name(n, suffix) for n, layer in enumerate(found.layers) for suffix in layer}
    assert {*found.first, *layers, *found.last} == set(checkpoint.tensors)


def test_no_stack_is_an_error():
    with pytest.raises(ModelError, match=r"the config says 5 layers.*model\.layers\.\* has 2"):
        layout(
            ["model.layers.0.w", "model.layers.1.w"],
            MixtralConfig(num_hidden_layers=5),
        )
