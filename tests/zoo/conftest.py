"""The shipped tokenizer and models, loaded once."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from evomerge.zoo import resolve


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shipped_tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(resolve("zoo:base"))


@pytest.fixture(scope="session")
def shipped_tools() -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(resolve("zoo:tools"), dtype=torch.float32).eval()
