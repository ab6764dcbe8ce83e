"""Tokenizers of model folders, their tables of tokens, and vocabularies that must not be mixed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from evomerge.candidate import Recipe, Source
from evomerge.errors import ModelError
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.saving import save
from evomerge.merge.tokenizer import check_tokens, load_tokenizer, tokens_of


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


ROWS = 259
"""Of the family's embeddings; its tokenizer has a token for each."""


@pytest.fixture
def spare(llama_family, tmp_path):
    """Copy a model, with tokens in its last rows or without."""

    def copied(name: str, model: int, added: dict[int, str], words: int = ROWS - 5) -> str:
        folder = Path(shutil.copytree(llama_family.models[model], tmp_path / name))
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        vocabulary = content["model"]["vocab"]
        content["model"]["vocab"] = {t: i for t, i in vocabulary.items() if i < words}
        content["added_tokens"] += [
            {
                "id": number,
                "content": token,
                "special": True,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
            for number, token in added.items()
        ]
        path.write_text(json.dumps(content), encoding="utf-8")
        return str(folder)

    return copied


def check(*names: str) -> None:
    check_tokens([open_checkpoint(name) for name in names])


def test_tables_are_what_transformers_loads(spare):
    folder = spare("one", 0, {254: "<a>", 255: "<b>"})
    found = tokens_of(Path(folder))
    assert found is not None
    assert dict(found.ids) == AutoTokenizer.from_pretrained(folder).get_vocab()
    assert {"<a>", "<b>", "</s>"} <= found.added.keys()
    assert "<b>" not in found.within(255)
    assert "<a>" in found.within(255)


def test_tokens_that_only_the_tokenizer_config_adds(spare):
    """Older tokenizers keep added tokens there, or in added_tokens.json."""
    base, expert = spare("base", 0, {}), spare("expert", 1, {})
    path = Path(expert) / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["added_tokens_decoder"] = {"254": {"content": "<|im_start|>", "special": True}}
    path.write_text(json.dumps(config), encoding="utf-8")
    if "<|im_start|>" not in AutoTokenizer.from_pretrained(expert).get_vocab():
        pytest.skip("transformers does not read it from there")
    with pytest.raises(ModelError, match=r"has token 254, '<\|im_start\|>', which the tokenizer"):
        check(base, expert)


def test_one_vocabulary_passes(spare):
    added = {254: "<a>", 255: "<b>"}
    check(spare("base", 0, added), spare("one", 1, added), spare("two", 2, {254: "<a>"}))


@pytest.mark.parametrize(
    ("base", "one", "two", "message"),
    [
        ({}, {254: "<a>"}, {}, r"one: has token 254, '<a>', which the tokenizer of .*base lacks"),
        (
            {},
            {254: "<a>", 255: "<b>"},
            {254: "<a>"},
            r"one: has token 254, '<a>' \(and 1 more\), which",
        ),
        (
            {},
            {254: "<a>"},
            {254: "<b>"},
            r"two: has another vocabulary: token 254 is '<b>', in .*one it is '<a>'",
        ),
        (
            {254: "<a>"},
            {254: "<b>"},
            {},
            r"one: has another vocabulary: token 254 is '<b>', in .*base it is '<a>'",
        ),
    ],
)
def test_what_must_not_be_mixed(base, one, two, message, spare, tmp_path):
    names = [spare("base", 0, base), spare("one", 1, one), spare("two", 2, two)]
    with pytest.raises(ModelError, match=message) as caught:
        check(*names)
    assert "tokenizer_source" in str(caught.value)
    assert "models.tokenizer" in str(caught.value)
    assert "\n" not in str(caught.value)
    recipe = Recipe(
        method="linear",
        models=tuple(Source(name, None, {"weight": 1.0}) for name in names),
        dtype="float32",
    )
    with pytest.raises(ModelError, match=message):
        save(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_token_of_two_numbers(spare):
    base, one = spare("base", 0, {}), spare("one", 1, {})
    for folder, number in ((base, 254), (one, 255)):
        path = Path(folder) / "tokenizer.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        content["model"]["vocab"]["wörd"] = number
        path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match=r"one: .*'wörd' is token 255, in .*base it is token 254"):
        check(base, one)


def test_tokens_without_rows_are_no_difference(spare):
    shared = {number: f"<{number}>" for number in range(ROWS - 5, ROWS)}
    check(spare("base", 0, shared), spare("one", 1, shared | {ROWS: "<a>"}))


def test_a_model_without_tokenizer_passes(spare):
    base, one = spare("base", 0, {254: "<a>"}), spare("one", 1, {})
    (Path(one) / "tokenizer.json").unlink()
    check(base, one)
    check(one, base)
