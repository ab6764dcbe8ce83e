"""What is written beside the weights, with a tokenizer and without one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from evomerge.candidate import Recipe, Source
from evomerge.errors import ModelError
from evomerge.merge.engine import MergeRun
from evomerge.merge.saving import save
from evomerge.merge.tokenizer_files import COPIED


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
