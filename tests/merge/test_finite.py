"""NaN and infinity are found before anything is merged with them."""

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
from evomerge.merge.family import check_finite
from evomerge.merge.saving import save

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
