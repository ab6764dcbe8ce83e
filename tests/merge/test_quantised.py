"""Codes are never merged as if they were weights, however a model is quantised."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge.candidate import Recipe, Source
from evomerge.errors import ModelError
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.quantised import check_tensors
from evomerge.merge.saving import save

Q = "model.layers.0.self_attn.q_proj"


@pytest.fixture
def folder(llama_family, tmp_path) -> Path:
    return Path(shutil.copytree(llama_family.experts[0], tmp_path / "quantised"))


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")


def rewrite(folder: Path, drop=(), **new: torch.Tensor) -> None:
    """Replace a projection's tensors; `__` stands for a dot."""
    path = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if name not in drop}
    save_file(kept | {f"{Q}.{key.replace('__', '.')}": new[key] for key in new}, path)


CODES = torch.zeros(32, 32)
ONE = torch.ones(1)
WEIGHT = f"{Q}.weight"
STORED = {
    "fp8": {"weight": CODES.to(torch.float8_e4m3fn), "weight_scale_inv": ONE},
    "fp8 without a scale": {"weight": CODES.to(torch.float8_e5m2)},
    "compressed-tensors": {"weight": CODES.to(torch.float8_e4m3fn), "weight_scale": ONE},
    "compressed-tensors, packed": {"weight_packed": CODES.int(), "weight_scale": ONE},
    "scales only": {"weight": CODES.bfloat16(), "weight_scale": ONE},
    "bitsandbytes, 4 bits": {
        "weight": CODES.to(torch.uint8).view(-1, 1),
        "weight__absmax": ONE,
        "weight__quant_map": torch.ones(16),
        "weight__quant_state__bitsandbytes__nf4": ONE.to(torch.uint8),
    },
    "bitsandbytes, 8 bits": {"weight": CODES.to(torch.int8), "SCB": ONE},
    "gptq": {
        "qweight": CODES.int(),
        "qzeros": CODES.int(),
        "scales": CODES.half(),
        "g_idx": torch.arange(32).int(),
    },
    "awq": {"qweight": CODES.int(), "qzeros": CODES.int(), "scales": CODES.half()},
    "mlx": {"weight": CODES.to(torch.uint32), "scales": CODES.half(), "biases": CODES.half()},
    "int8 without a scale": {"weight": CODES.to(torch.int8)},
}


@pytest.mark.parametrize("name", STORED)
def test_by_names_and_dtypes_of_tensors(name, folder, llama_family):
    dropped = () if "weight" in STORED[name] else (WEIGHT,)
    rewrite(folder, dropped, **STORED[name])
    with pytest.raises(ModelError, match="quantised") as caught:
        open_checkpoint(str(folder))
    message = str(caught.value)
    assert str(folder / "model.safetensors") in message
    assert Q in message
    assert "dequantise it first" in message
    assert "\n" not in message
    open_checkpoint(llama_family.base)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantization_config"),
        ({"text_config": {"quantization_config": {"quant_method": "gptq"}}}, "text_config.quant"),
        ({"compression_config": {"quantization_status": "frozen"}}, "compression_config"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "quantization"),
    ],
)
def test_by_the_config(changes, field, folder):
    edit_config(folder, **changes)
    with pytest.raises(ModelError, match=rf"config\.json: {field}.*says that .* is quantised"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("name", ["quantize_config.json", "hf_quant_config.json"])
def test_by_a_file_beside_the_config(name, folder):
    (folder / name).write_text("{}")
    (folder / "model.safetensors").rename(folder / "gptq_model-4bit-128g.safetensors")
    with pytest.raises(ModelError, match=rf"{name}: stands in the folder of a quantised model"):
        open_checkpoint(str(folder))


def test_a_name_that_the_model_itself_knows_is_a_weight():
    dtypes = {"model.norm.weight_scale": torch.bfloat16}
    with pytest.raises(ModelError, match="is not a weight"):
        check_tensors(Path("x"), dtypes)
    check_tensors(Path("x"), dtypes, own=dict.fromkeys(dtypes, True))


def test_whole_numbers_where_the_model_itself_has_them():
    dtypes = {"model.layers.0.mlp.experts.order": torch.int64}
    check_tensors(Path("x"), dtypes, own=dict.fromkeys(dtypes, False))
    for own in (None, dict.fromkeys(dtypes, True)):
        with pytest.raises(ModelError, match="is stored as int64"):
            check_tensors(Path("x"), dtypes, own)


@pytest.mark.parametrize("empty", [None, {}])
def test_an_empty_declaration_is_none(empty, folder):
    edit_config(folder, quantization_config=empty)
    open_checkpoint(str(folder))


def test_one_quantised_expert_is_enough(folder, llama_family, tmp_path):
    rewrite(folder, **STORED["fp8"])
    recipe = Recipe(
        method="linear",
        models=tuple(
            Source(m, parameters={"weight": 1.0}) for m in (llama_family.base, str(folder))
        ),
    )
    with pytest.raises(ModelError, match="is stored as float8_e4m3fn"):
        save(recipe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_pickle(folder):
    tensors = load_file(folder / "model.safetensors") | {WEIGHT: CODES.to(torch.int8)}
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=rf"pytorch_model\.bin: {WEIGHT} is stored as int8"):
        open_checkpoint(str(folder), allow_pickle=True)


def test_an_adapter_on_a_quantised_model(folder, tmp_path):
    edit_config(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2}))
    pair = {"lora_A.weight": torch.ones(2, 32), "lora_B.weight": torch.ones(32, 2)}
    named = {f"base_model.model.{Q}.{key}": tensor for key, tensor in pair.items()}
    save_file(named, adapter / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="is quantised"):
        open_checkpoint(f"{folder}+{adapter}")
    edit_config(folder, quantization_config=None)
    open_checkpoint(f"{folder}+{adapter}")


def test_gguf(folder, tmp_path):
    file = tmp_path / "model-Q4_K_M.gguf"
    file.write_bytes(b"GGUF")
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(file, alone)
    (folder / "model.safetensors").unlink()
    shutil.copy(file, folder)
    for model in (file, alone, folder):
        with pytest.raises(ModelError, match=r"model-Q4_K_M\.gguf: is a GGUF file"):
            open_checkpoint(str(model))


def test_whole_numbers_that_are_no_weights(folder):
    """Positions, masks and counters are stored as whole numbers by models that are not quantised."""
    extra = {
        "model.position_ids": torch.arange(4),
        "model.layers.0.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.uint8),
        "model.norm.num_batches_tracked": torch.tensor(3),
    }
    path = folder / "model.safetensors"
    save_file(load_file(path) | extra, path)
    open_checkpoint(str(folder))
