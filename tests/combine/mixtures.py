"""Families of the architectures that have mixtures, and what their mixtures are made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from evomerge.candidate import Merge, Mixture
from evomerge.candidate.gates import Gates
from tests.conftest import Family, byte_tokenizer

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
SHARED = ("llama", "mistral", "qwen2")
"""Those that have mixtures with a shared expert."""

_SIZES = {
    "vocab_size": len(byte_tokenizer()),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "dtype": "float32",
}


@pytest.fixture(scope="session")
def families(
    llama_family: Family,
    qwen2_family: Family,
    build_family: Callable[..., Family],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Family]:
    """Return a base and three experts of an architecture: tied and untied heads, heads of unlike width."""
    built = {"llama": llama_family, "qwen2": qwen2_family}

    def family(architecture: str) -> Family:
        if architecture not in built:
            folder = tmp_path_factory.mktemp(architecture)
            built[architecture] = build_family(folder, *model_of(architecture))
        return built[architecture]

    return family


def model_of(architecture: str, **settings: Any) -> tuple[Any, Any]:
    """Return the class and the configuration of a tiny model."""
    if architecture == "mistral":
        return MistralForCausalLM, MistralConfig(
            **_SIZES, sliding_window=None, tie_word_embeddings=True, head_dim=16, **settings
        )
    if architecture == "qwen3":
        return Qwen3ForCausalLM, Qwen3Config(
            **_SIZES, head_dim=16, tie_word_embeddings=True, **settings
        )
    return LlamaForCausalLM, LlamaConfig(**_SIZES, tie_word_embeddings=True, **settings)


def alone(model: str) -> Merge:
    """Return a model as it is."""
    return Merge("passthrough", (model,), dtype="float32")


def summed(family: Family, weight: float = 0.5) -> Merge:
    """Return the base plus the experts' task vectors."""
    return Merge(
        "task_arithmetic", family.experts, family.base, fixed={"weight": weight}, dtype="float32"
    )


def gates_of(experts: int, layers: int, hidden: int = 32, scale: float = 1.0) -> Gates:
    """Return random gates."""
    rng = np.random.default_rng(0)
    drawn = rng.normal(scale=scale, size=(layers, experts, hidden)).astype(np.float32)
    return Gates.of(dict(enumerate(drawn)))


def mixture_of(
    family: Family,
    members: Sequence[Merge] | None = None,
    *,
    top_k: int = 2,
    share: float = 0.0,
    scale: float = 1.0,
    shared: Merge | None = None,
) -> Mixture:
    """Return a mixture with random gates."""
    members = [alone(model) for model in family.experts] if members is None else members
    layers = 4 if "llama" in family.base else 2
    return Mixture(
        family.base,
        shared or summed(family),
        {f"e{number}": member for number, member in enumerate(members)},
        top_k,
        share=share,
        fit=gates_of(len(members), layers, scale=scale),
    )


def tokens(count: int = 24, rows: int = 3) -> torch.Tensor:
    """Return random tokens, `[rows, count]`."""
    return torch.randint(3, _SIZES["vocab_size"], (rows, count))  # type: ignore[arg-type]
