"""Tokenizers of model folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from evomerge.errors import ModelError
from evomerge.merge.tokenizer import load_tokenizer


def test_load(llama_family):
    for name in (llama_family.base, f"{llama_family.base}+{llama_family.experts[0]}"):
        tokenizer = load_tokenizer(name)
        assert tokenizer.decode(tokenizer("añb")["input_ids"]) == "añb"


def test_a_folder_without_tokenizer(tmp_path):
    with pytest.raises(
        ModelError, match="no tokenizer in this folder, and one is needed"
    ) as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_broken_tokenizer(llama_family, tmp_path):
    folder = Path(shutil.copytree(llama_family.base, tmp_path / "broken"))
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=r"no tokenizer that transformers reads: \w") as caught:
        load_tokenizer(str(folder))
    assert "\n" not in str(caught.value)
