"""Whether models are one family, and hold only numbers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.candidate import Recipe, Slice, Source
from evomerge.errors import ModelError
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.family import check_family, check_finite, merged_names
from evomerge.merge.saving import save


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
        (lambda t: t | {"extra": torch.ones(1)}, r"has extra, which the base .* lacks$"),
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


NAME = "model.layers.2.mlp.up_proj.weight"


@pytest.fixture
def folder(llama_family, tmp_path) -> Path:
    return Path(shutil.copytree(llama_family.experts[0], tmp_path / "expert"))


def spoil(folder: Path, value: float, dtype: torch.dtype = torch.float32, name: str = NAME) -> None:
    path = folder / "model.safetensors"
    weights = {key: tensor.to(dtype) for key, tensor in load_file(path).items()}
    weights[name].view(-1)[5] = value
    save_file(weights, path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(
    ("value", "kind"),
    [(float("nan"), "NaN"), (float("inf"), "infinity"), (float("-inf"), "infinity")],
)
def test_the_first_bad_tensor_is_named(value, kind, dtype, folder):
    check_finite(open_checkpoint(str(folder)))
    spoil(folder, value, dtype)
    with pytest.raises(
        ModelError, match=rf"{NAME} holds {kind} in 1 of 1536 values .*\[0, 5\]"
    ) as caught:
        check_finite(open_checkpoint(str(folder)))
    assert str(caught.value).startswith(str(folder))


def test_the_largest_finite_value_is_one(folder):
    spoil(folder, torch.finfo(torch.bfloat16).max, torch.bfloat16)
    check_finite(open_checkpoint(str(folder)))


def test_every_tensor_is_read_once(folder):
    checkpoint = open_checkpoint(str(folder))
    asked = []

    def read(name):
        asked.append(name)
        return checkpoint.tensor(name)

    check_finite(replace(checkpoint, _read=read))
    assert asked == sorted(checkpoint.tensors)


def test_an_adapters_update(llama_family, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2}))
    key = f"base_model.model.{NAME.removesuffix('.weight')}"
    pair = {"lora_A.weight": torch.ones(2, 32), "lora_B.weight": torch.ones(48, 2)}
    pair["lora_B.weight"][0, 0] = float("nan")
    save_file(
        {f"{key}.{name}": tensor for name, tensor in pair.items()},
        tmp_path / "adapter_model.safetensors",
    )
    checkpoint = open_checkpoint(f"{llama_family.base}+{tmp_path}")
    with pytest.raises(ModelError, match=f"{NAME} holds NaN"):
        check_finite(checkpoint, checkpoint.adapted)


@pytest.mark.parametrize("spoilt", ["base", "expert"])
def test_a_merge_to_disk_refuses_it(spoilt, folder, llama_family, tmp_path):
    models = {"base": (str(folder), llama_family.base), "expert": (llama_family.base, str(folder))}
    base, expert = models[spoilt]
    spoil(folder, float("nan"))
    recipe = Recipe(
        method="task_arithmetic",
        models=(Source(expert),),
        base_model=base,
        parameters={"weight": 0.5},
    )
    with pytest.raises(ModelError, match=f"{NAME} holds NaN"):
        save(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_layer_that_no_slice_takes_may_be_spoilt(folder, tmp_path):
    spoil(folder, float("nan"))
    slices = (Slice((Source(str(folder), (0, 2)),)), Slice((Source(str(folder), (3, 4)),)))
    save(Recipe(method="passthrough", slices=slices), tmp_path / "out")
