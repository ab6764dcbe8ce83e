"""Families of tiny models that every room's tests share: built once a session, without a network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_worker_niceness", "0")  # else tests beside them starve Ray's workers
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels for a GPU run on the CPU, slowly

import hypothesis
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.utils import logging as transformers_logging

transformers_logging.disable_progress_bar()
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")

SPECIAL = ("<pad>", "<s>", "</s>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@dataclass(frozen=True)
class Family:
    """A base and its experts, as folders that transformers loads."""

    base: str
    experts: tuple[str, ...]

    @property
    def models(self) -> tuple[str, ...]:
        """Base first."""
        return (self.base, *self.experts)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_numbers() -> Iterator[None]:
    """A test that draws from torch's generator draws the same every time, and leaves no trace."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session")
def llama_family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Llama: 4 layers, hidden 32, grouped-query attention, an `lm_head` of its own."""
    config = LlamaConfig(
        vocab_size=len(byte_tokenizer()),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        dtype="float32",
    )
    return save_family(tmp_path_factory.mktemp("llama"), LlamaForCausalLM, config)


@pytest.fixture(scope="session")
def qwen2_family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Qwen2: 2 layers, hidden 32, biases on q, k and v, tied embeddings."""
    config = Qwen2Config(
        vocab_size=len(byte_tokenizer()),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        dtype="float32",
    )
    return save_family(tmp_path_factory.mktemp("qwen2"), Qwen2ForCausalLM, config)


@pytest.fixture(scope="session")
def build_family() -> Callable[..., Family]:
    """Build a family of any architecture: `build_family(folder, model_class, config)`."""
    return save_family


def save_family(
    folder: Path,
    model_class: type[PreTrainedModel],
    config: PretrainedConfig,
    *,
    experts: int = 3,
    noise: float = 0.02,
    seed: int = 0,
) -> Family:
    """Save a random base and `experts` models that are the base plus Gaussian noise."""
    tokenizer = byte_tokenizer()
    generator = torch.Generator().manual_seed(seed)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            mean = 1.0 if parameter.ndim == 1 else 0.0
            parameter.copy_(mean + 0.1 * torch.randn(parameter.shape, generator=generator))
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)

    base_weights = {name: value.clone() for name, value in model.state_dict().items()}
    names = ["base", *(f"expert{index}" for index in range(experts))]
    for name in names:
        if name != "base":
            with torch.no_grad():
                for key, parameter in model.named_parameters():
                    delta = torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(base_weights[key] + noise * delta)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return Family(base=str(folder / "base"), experts=tuple(str(folder / n) for n in names[1:]))


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of 259 tokens (special ones first), with a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *alphabet))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=256,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
