"""Tiny models of unlike vocabularies, and recipes over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from evomerge.candidate import Recipe, Source, Vocabulary
from evomerge.merge.checkpoint import open_checkpoint

WORDS = 40


def tokenizer(added: Mapping[int, str], words: int = WORDS) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, with more tokens from `words` on."""
    fast = of_words(["<unk>", "<s>", "</s>", *(f"w{number}" for number in range(words - 3))])
    for number in sorted(added):
        fast.add_special_tokens({"additional_special_tokens": [added[number]]}, False)
        assert fast.get_vocab()[added[number]] == number
    return fast


def of_words(known: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of these words in this order."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def write(folder: Path, tokens: PreTrainedTokenizerFast, rows: int, seed: int, tie: bool) -> str:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tie,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return str(folder)


MODELS = {
    "base": ({40: "<|sys|>"}, 48),
    "chat": ({40: "<|sys|>", 41: "<|im_start|>", 42: "<|im_end|>", 43: "<tool>"}, 48),
    "pad": ({40: "<pad>", 41: "<tool>", 42: "<|sys|>"}, 50),  # the same tokens under other numbers
    "short": ({}, 40),
}


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def models(request, tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {
        name: write(folder / name, tokenizer(added), rows, seed, request.param)
        for seed, (name, (added, rows)) in enumerate(MODELS.items())
    }


def sources(models: Mapping[str, str], *names: str) -> tuple[Source, ...]:
    return tuple(
        Source(models[name], None, {"weight": 0.3 + 0.2 * i}) for i, name in enumerate(names)
    )


def arithmetic(known: Mapping[str, str], vocabulary: Vocabulary, **changes: object) -> Recipe:
    recipe = Recipe(
        method="task_arithmetic",
        models=sources(known, "chat", "pad"),
        base_model=known["base"],
        dtype="float32",
        vocabulary=vocabulary,
    )
    return replace(recipe, **changes)


def assert_equal_by_token(ours: Path, theirs: Path) -> None:
    """Two merged models hold the same tokens, and the same tensors row by row of each token."""
    mine, other = open_checkpoint(str(ours)), open_checkpoint(str(theirs))
    numbers = [AutoTokenizer.from_pretrained(folder).get_vocab() for folder in (ours, theirs)]
    assert numbers[0].keys() == numbers[1].keys()
    order, their_order = (torch.tensor([ids[t] for t in sorted(ids)]) for ids in numbers)
    if mine.tensors.keys() != other.tensors.keys():  # experts that the other has fused
        one, two = (AutoModelForCausalLM.from_pretrained(f).state_dict() for f in (ours, theirs))
    else:
        one, two = ({name: each.tensor(name) for name in each.tensors} for each in (mine, other))
    assert one.keys() == two.keys()
    for name, expected in two.items():
        found = one[name]
        assert found.shape == expected.shape
        if name in mine.vocabulary_tensors.names:
            padding = slice(len(order), None)
            assert torch.allclose(found[padding], expected[padding], atol=1e-6)
            found, expected = found[order], expected[their_order]
        assert torch.allclose(found, expected, rtol=0, atol=1e-6), name
