"""Embeddings and heads by their names: transformers' own accessors are the oracle."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    FalconConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    OPTConfig,
    PhiConfig,
    Qwen2Config,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from evomerge.merge.heads import (
    VocabularyTensors,
    is_head,
    is_tied,
    resized_config,
    untied_config,
)

SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
CONFIGS = {
    "llama": LlamaConfig(vocab_size=24, intermediate_size=24, tie_word_embeddings=False, **SMALL),
    "qwen2, tied": Qwen2Config(vocab_size=24, num_key_value_heads=2, **SMALL),
    "gpt2, as many positions": GPT2Config(
        vocab_size=24, n_positions=24, n_embd=8, n_layer=1, n_head=2
    ),
    "gpt_neox": GPTNeoXConfig(vocab_size=24, intermediate_size=24, **SMALL),
    "opt, as many positions": OPTConfig(
        vocab_size=24, max_position_embeddings=22, ffn_dim=24, word_embed_proj_dim=8, **SMALL
    ),  # it adds 2
    "phi, a bias": PhiConfig(vocab_size=24, intermediate_size=24, **SMALL),
    "falcon": FalconConfig(vocab_size=24, **SMALL),
}


def shapes_of(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(one.shape) for name, one in model.named_parameters()}  # tied ones once


@pytest.mark.parametrize("name", CONFIGS)
def test_they_are_those_that_transformers_uses(name):
    config = CONFIGS[name]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    names = {one: name for name, one in model.named_parameters()}
    found = VocabularyTensors.of(config, shapes_of(model))
    assert found.embedding == names[model.get_input_embeddings().weight]
    head = (
        {}
        if is_tied(config)
        else {names[one] for one in model.get_output_embeddings().parameters()}
    )
    assert set(found.heads) == set(head)
    assert found.names == (found.embedding, *found.heads)


def test_what_cannot_be_told_is_not_guessed():
    config = LlamaConfig(vocab_size=24)
    two = {"model.embed_tokens.weight": (24, 8), "model.embed_more.weight": (24, 8)}
    assert VocabularyTensors.of(config, two) == VocabularyTensors(None, ())
    other_rows = {"model.embed_tokens.weight": (23, 8), "lm_head.weight": (24, 8)}
    found = VocabularyTensors.of(config, other_rows)
    assert (found.embedding, found.names) == (None, ("lm_head.weight",))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("lm_head.weight", True),
        ("lm_head.bias", True),
        ("embed_out.weight", True),
        ("model.layers.0.attention.output.weight", False),
        ("model.embed_tokens.weight", False),
        ("model.overhead.weight", False),
    ],
)
def test_heads_are_told_from_what_sounds_like_one(name, wanted):
    assert is_head(name) is wanted


def test_configs_are_changed_in_copies():
    tied = LlamaConfig(vocab_size=24, tie_word_embeddings=True)
    assert is_tied(tied)
    assert not is_tied(untied_config(tied))
    assert resized_config(tied, 24) is tied
    assert resized_config(tied, 30).vocab_size == 30
    assert (tied.vocab_size, is_tied(tied)) == (24, True)
