"""What is written beside the weights, with a tokenizer and without one."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer, GenerationConfig

from evomerge.candidate import Recipe, Source, Vocabulary
from evomerge.errors import ModelError
from evomerge.merge.engine import MergeRun
from evomerge.merge.saving import save
from evomerge.merge.tokenizer_files import COPIED
from tests.merge.vocabularies import of_words, write


@pytest.fixture
def bare(llama_family, tmp_path) -> str:
    """A model folder without a tokenizer."""
    folder = Path(shutil.copytree(llama_family.base, tmp_path / "bare"))
    for name in COPIED:
        (folder / name).unlink(missing_ok=True)
    return str(folder)


def passthrough(model: str, **changes: object) -> Recipe:
    return Recipe(method="passthrough", models=(Source(model),), dtype="float32", **changes)


def test_the_bases_files_are_copied_as_they_are(llama_family, tmp_path):
    save(passthrough(llama_family.base), tmp_path / "out")
    base = Path(llama_family.base)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (base / name).read_bytes()


def test_a_model_without_tokenizer_is_merged_where_none_is_asked_for(bare, llama_family, tmp_path):
    save(passthrough(bare), tmp_path / "out")
    assert not [name for name in COPIED if (tmp_path / "out" / name).exists()]
    recipe = Recipe(
        method="linear",
        models=tuple(Source(m, None, {"weight": 1.0}) for m in (llama_family.experts[0], bare)),
        dtype="float32",
    )
    save(recipe, tmp_path / "two")
    AutoTokenizer.from_pretrained(tmp_path / "two")


def test_a_template_needs_a_tokenizer_and_says_so_before_anything_is_merged(
    bare, tmp_path, monkeypatch
):
    monkeypatch.setattr(MergeRun, "tensors", None)
    with pytest.raises(ModelError, match="no tokenizer in this folder, and one is needed"):
        save(passthrough(bare, chat_template="chatml"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


WORDS = [f"w{number}" for number in range(9)]
NEW = {"<new>": {"source": {"kind": "zero"}}}


@pytest.mark.parametrize("tokens", [{}, NEW], ids=["as it is", "with a token more"])
@pytest.mark.parametrize("has_settings", [True, False])
def test_generation_settings_are_those_of_the_tokenizer(has_settings, tokens, tmp_path):
    base = write(tmp_path / "base", of_words(["<unk>", "<s>", "</s>", *WORDS]), 12, 0, tie=True)
    words = of_words(["<unk>", "<a>", "<b>", "<s>", "</s>", *WORDS])
    words.save_pretrained(tmp_path / "third")
    if has_settings:
        settings = GenerationConfig(bos_token_id=3, eos_token_id=4, max_new_tokens=7)
        settings.save_pretrained(tmp_path / "third")
    save(
        passthrough(base, vocabulary=Vocabulary(str(tmp_path / "third"), tokens)), tmp_path / "out"
    )
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (3, 4)
    found = tmp_path / "out" / "generation_config.json"
    if has_settings:
        assert json.loads(found.read_text())["max_new_tokens"] == 7
    assert found.exists() is has_settings  # without one, transformers goes by config.json


@pytest.fixture
def several(llama_family, tmp_path) -> str:
    """A model with a chat template and a second one by name."""
    folder = Path(shutil.copytree(llama_family.base, tmp_path / "several"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = {"default": "D{{ messages }}", "tool_use": "T{{ messages }}"}
    tokenizer.save_pretrained(folder)
    assert (folder / "additional_chat_templates" / "tool_use.jinja").is_file()
    return str(folder)


def test_chat_templates_with_names_are_copied_and_synced(several, tmp_path, monkeypatch):
    names: dict[int, str] = {}
    synced = set()
    opening, syncing = os.open, os.fsync

    def opened(path: os.PathLike[str], *arguments: int, **options: int) -> int:
        descriptor = opening(path, *arguments, **options)
        names[descriptor] = Path(path).name
        return descriptor

    def fsync(descriptor: int) -> None:
        synced.add(names[descriptor])
        syncing(descriptor)

    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(os, "fsync", fsync)
    save(passthrough(several), tmp_path / "out")
    found, expected = (AutoTokenizer.from_pretrained(f) for f in (tmp_path / "out", several))
    assert found.chat_template == expected.chat_template
    assert {"additional_chat_templates", "tool_use.jinja", "model.safetensors"} <= synced


def test_a_template_that_is_asked_for_is_the_only_one(several, tmp_path):
    save(passthrough(several, chat_template="M{{ messages }}"), tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == "M{{ messages }}"
