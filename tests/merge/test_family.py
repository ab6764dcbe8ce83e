"""What may be merged with what."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.errors import ModelError
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.family import check_family, merged_names


@pytest.fixture
def expert(llama_family, tmp_path) -> Path:
    return Path(shutil.copytree(llama_family.experts[0], tmp_path / "expert"))


def rewrite(folder: Path, change) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


def check(base, folder):
    check_family(open_checkpoint(base), [open_checkpoint(str(folder))])


def test_a_family_passes(llama_family, qwen2_family):
    for family in (llama_family, qwen2_family):
        check_family(open_checkpoint(family.base), [open_checkpoint(m) for m in family.experts])


def test_another_architecture(llama_family, qwen2_family):
    with pytest.raises(ModelError, match=r"is a qwen2 model, the base .* a llama"):
        check(llama_family.base, qwen2_family.base)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: {k: v for k, v in t.items() if "layers.2.mlp" not in k},
            r"lacks model\.layers\.2\.mlp\.down_proj\.weight \(and 2 more\), which the base .* has$",
        ),
        (lambda t: t | {"extra": torch.ones(1)}, r"has extra, which the base .* has not$"),
        (
            lambda t: t | {"model.norm.weight": torch.ones(16)},
            r"another shape: model\.norm\.weight is \[16\], the base's .* \[32\]",
        ),
        (
            lambda t: t | {"model.embed_tokens.weight": torch.ones(300, 32)},
            r"another vocabulary: model\.embed_tokens\.weight is \[300, 32\], the base's .* \[259, 32\]",
        ),
    ],
)
def test_tensors_must_be_the_same(change, message, llama_family, expert):
    rewrite(expert, change)
    with pytest.raises(ModelError, match=message) as caught:
        check(llama_family.base, expert)
    assert str(expert) in str(caught.value)


def edit_tokens(folder: Path, change) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_rows_must_mean_the_same_tokens(llama_family, expert):
    def swap(content):
        vocabulary = content["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]

    edit_tokens(expert, swap)
    with pytest.raises(
        ModelError, match=r"another vocabulary: token \d+ is '[ab]', in .*base it is"
    ):
        check(llama_family.base, expert)


def test_unlike_vocabularies_pass_where_rows_are_matched_by_token(llama_family, expert):
    rows = {name: torch.ones(300, 32) for name in ("model.embed_tokens.weight", "lm_head.weight")}
    rewrite(expert, lambda tensors: tensors | rows)
    check_family(open_checkpoint(llama_family.base), [open_checkpoint(str(expert))], matched=True)


def test_no_tokenizer_is_no_error_and_a_broken_one_is(llama_family, expert):
    (expert / "tokenizer.json").unlink()
    check(llama_family.base, expert)
    (expert / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="not a tokenizer"):
        check(llama_family.base, expert)


def test_a_stored_copy_of_tied_embeddings_is_left_out(qwen2_family, tmp_path):
    folder = Path(shutil.copytree(qwen2_family.base, tmp_path / "tied"))
    rewrite(folder, lambda t: t | {"lm_head.weight": t["model.embed_tokens.weight"].clone()})
    assert "lm_head.weight" not in merged_names(open_checkpoint(str(folder)))
    check(qwen2_family.base, folder)
    rewrite(folder, lambda t: t | {"lm_head.weight": t["model.embed_tokens.weight"] + 1})
    with pytest.raises(ModelError, match=r"lm_head\.weight differs from the embeddings"):
        check(qwen2_family.base, folder)


def test_two_names_of_one_folder_are_refused(llama_family, tmp_path):
    base, one = llama_family.base, llama_family.experts[0]
    link = tmp_path / "link"
    link.symlink_to(one)
    dotted = f"{Path(one).parent}/./{Path(one).name}/"
    for twin in (str(link), dotted):
        with pytest.raises(ModelError, match=rf"is the same model as {one}; name") as caught:
            check_family(open_checkpoint(base), [open_checkpoint(one), open_checkpoint(twin)])
        assert str(caught.value).startswith(twin)
    with pytest.raises(ModelError, match="is the same model"):
        check_family(open_checkpoint(one), [open_checkpoint(str(link))])
