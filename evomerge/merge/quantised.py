"""Quantised checkpoints: their tensors are codes and scales, which no merge may take for weights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from evomerge.errors import ModelError

KEYS = ("quantization_config", "compression_config", "quantization")  # the last is MLX's
SIDECARS = (
    "quantize_config.json",
    "quant_config.json",
    "hf_quant_config.json",
)  # GPTQ, AWQ, ModelOpt
ADVICE = "name the unquantised original, or dequantise it first and save that"

# What bitsandbytes, GPTQ, AWQ, FP8, compressed-tensors, MXFP4 and HQQ store beside or instead of a weight.
CODE_NAMES = re.compile(
    r"(^|[._])("
    r"(weight|input)_scales?(_inv|_2)?|weight_(packed|zero_point|shape|format)|"
    r"(nested_)?(absmax|quant_map)|quant_state(\..*)?|qweight|qzeros|g_idx|SCB|W_q|"
    r"(gate_up|gate|up|down)_proj_(blocks|scales)|codebooks"
    r")$"
)
WEIGHT_NAMES = re.compile(r"weight|proj|experts|qdata|codes")
CODE_DTYPES = frozenset(
    getattr(torch, name)
    for name in ("uint8", "uint16", "uint32", "int8", "int16", "int32", "int64", "qint8", "quint8")
)


def check_config(folder: Path) -> None:
    """Check that a model's config does not call it quantised.

    Raises:
        ModelError: It does; naming the key.
    """
    for name in SIDECARS:
        if (folder / name).is_file():
            raise ModelError(
                f"stands in the folder of a quantised model: its tensors are codes, not weights; {ADVICE} "
                "(if the weights are stored in full, remove this file)",
                file=folder / name,
            )
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # not a config: the error of the reader says more
    for field, found in _declared(content, ""):
        method = found.get("quant_method") or found.get("quantization_status") or "quantised"
        raise ModelError(
            f"says that the model is quantised ({method}): its tensors are codes, not weights; "
            f"{ADVICE} (if the weights are stored in full, remove this key)",
            file=path,
            field=field,
        )


def check_tensors(
    file: Path, dtypes: Mapping[str, torch.dtype | None], own: Mapping[str, bool] | None = None
) -> None:
    """Check that a file's tensors are weights, by their names and dtypes.

    Args:
        file: That holds them.
        dtypes: Tensor → dtype; None for one of fewer than 8 bits or without sign and fraction (F4, F8_E8M0).
        own: The model's own names of its tensors, which may look like anything → whether they are
            floating-point numbers; None: not known.

    Raises:
        ModelError: One is a code or a scale.
    """
    for name, dtype in sorted(dtypes.items()):
        if reason := _reason(name, dtype, own or {}):
            raise ModelError(
                f"{name} {reason}: the model is quantised, its tensors are codes, not weights; {ADVICE}",
                file=file,
            )


def gguf_error(path: Path) -> ModelError:
    """Return the error for a model in llama.cpp's format."""
    return ModelError(
        "is a GGUF file, in which weights are stored for llama.cpp, mostly quantised; name the "
        "unquantised original in Hugging Face format (config.json and model.safetensors)",
        file=path,
    )


def _declared(content: object, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every quantisation that a config declares, in nested configs too, with its dotted key."""
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        field = f"{place}.{key}" if place else str(key)
        if key in KEYS:
            if isinstance(value, dict) and value:
                yield field, value
        else:
            yield from _declared(value, field)


def _reason(name: str, dtype: torch.dtype | None, own: Mapping[str, bool]) -> str | None:
    if CODE_NAMES.search(name) and name not in own:
        return "is not a weight but part of one that is stored in codes"
    if dtype is None:
        return "is stored as fewer than 16 bits"
    small = dtype.is_floating_point and dtype.itemsize == 1
    if small or (dtype in CODE_DTYPES and own.get(name, bool(WEIGHT_NAMES.search(name)))):
        return f"is stored as {str(dtype).removeprefix('torch.')}"
    return None
