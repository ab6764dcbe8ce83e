from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from evomerge.zoo.drawing import items, markup
from evomerge.zoo.tokenizer import SPECIAL_TOKENS, VOCABULARY, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    texts = [
        i.prompt + i.answer for job in ("tools", "extraction") for i in items(job, "train", 500)
    ]
    return train_tokenizer(texts)


def test_vocabulary_and_special_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer) == VOCABULARY
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2, 3, 4]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    assert tokenizer("2021")["input_ids"] == tokenizer.convert_tokens_to_ids(["2", "0", "2", "1"])


def test_any_text_comes_back(tokenizer: PreTrainedTokenizerFast) -> None:
    @given(st.text())
    def check(text: str) -> None:
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=False) == text

    check()


def test_the_chat_template_writes_the_markup(tokenizer: PreTrainedTokenizerFast) -> None:
    turns = ("I want mugs.", "Noted.", "So?")
    messages = [
        {"role": role, "content": turn}
        for role, turn in zip(("user", "assistant", "user"), turns, strict=True)
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == markup(turns)
    system = [{"role": "system", "content": "Be brief."}]
    assert tokenizer.apply_chat_template(system, tokenize=False) == "<|system|>Be brief.<|end|>"


def test_prompt_and_answer_are_tokenised_alike_apart_and_together(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    for item in items("tools", "test", 50):
        apart = tokenizer(item.prompt)["input_ids"] + tokenizer(item.answer)["input_ids"]
        assert tokenizer(item.prompt + item.answer)["input_ids"] == apart
