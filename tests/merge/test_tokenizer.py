"""Tokenizers of model folders."""

from __future__ import annotations

import pytest

from evomerge.errors import ModelError
from evomerge.merge import load_tokenizer


def test_load(llama_family):
    for name in (llama_family.base, f"{llama_family.base}+{llama_family.experts[0]}"):
        tokenizer = load_tokenizer(name)
        assert tokenizer.decode(tokenizer("añb")["input_ids"]) == "añb"


def test_a_folder_without_tokenizer(tmp_path):
    with pytest.raises(ModelError, match="no tokenizer that transformers reads") as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)
