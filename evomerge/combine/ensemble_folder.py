"""What lies in the folder of an ensemble: `combiner.json`, and the members that it names.

A copy of this file lies in every saved ensemble, beside `modeling_ensemble.py`: it needs torch,
safetensors and the Hub's client, nothing else.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file
from torch import Tensor

COMBINER = "combiner.json"
ROUTER = "router.safetensors"
SCHEMA = 1
HASHED = {".safetensors", ".bin", ".json", ".model"}
"""Weights, configurations and tokenizers."""
SAMPLE_BYTES, SAMPLES = 1 << 16, 64
FACTOR = ".lora_A.weight"


def read_combiner(folder: Path) -> dict[str, Any]:
    """Return the content of `combiner.json`.

    Raises:
        OSError: The folder holds no ensemble, or one of a later release.
    """
    path = folder / COMBINER
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        schema = found["schema"]
    except FileNotFoundError:
        raise OSError(f"{folder}: no {COMBINER}; expected a saved ensemble") from None
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(f"{path}: not the description of an ensemble ({error!r})") from None
    if schema != SCHEMA:
        raise OSError(f"{path}: found schema {schema}, this release reads {SCHEMA}")
    return found


def check_members(folder: Path) -> None:
    """Check that every member is there and is what it was.

    Raises:
        OSError: Naming the member that is gone or was changed.
    """
    combiner = read_combiner(folder)
    for place in (combiner["base"], *combiner["members"]):
        named = (
            f"{folder}: the member {place['name']}" if "name" in place else f"{folder}: the base"
        )
        try:
            parts = parts_of(place, folder)
            found = fingerprint(parts)
        except OSError as error:
            raise OSError(f"{named} is gone: {error}") from None
        if found != place["hash"]:
            where = " + ".join(map(str, parts))
            raise OSError(f"{named} is not what it was when the ensemble was saved: {where}")


def parts_of(place: Mapping[str, Any], folder: Path) -> list[Path]:
    """Return where the files of a member lie: its model, and its adapter if it has one.

    Args:
        place: Its entry in `combiner.json`.
        folder: Of the ensemble.

    Raises:
        OSError: The Hub does not give it.
    """
    adapter = [folder / place["adapter"]] if place.get("adapter") is not None else []
    if place.get("path") is not None:
        return [(folder / place["path"]).resolve(), *adapter]
    kept = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.py"]
    try:
        found = snapshot_download(place["id"], revision=place.get("revision"), allow_patterns=kept)
    except Exception as error:  # noqa: BLE001 - of any client
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OSError(f"the Hub does not give {place['id']}: {reason}") from None
    return [Path(found), *adapter]


def fingerprint(folders: Sequence[Path]) -> str:
    """Return a hash that changes with a model's files: their sizes, and bytes sampled from each.

    Raises:
        OSError: A folder is gone.
    """
    digest = hashlib.blake2b(digest_size=16)
    for folder in folders:
        if not folder.is_dir():
            raise OSError(f"no folder {folder}")
        for path in sorted(path for path in folder.iterdir() if path.suffix in HASHED):
            size = path.stat().st_size
            digest.update(f"{path.name} {size}\n".encode())
            with path.open("rb") as file:
                for sample in range(SAMPLES if size > SAMPLE_BYTES else 1):
                    file.seek(sample * max(0, size - SAMPLE_BYTES) // (SAMPLES - 1))
                    digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def lora_updates(folder: Path) -> dict[str, Tensor]:
    """Return what a plain LoRA adapter adds: module → scale · B A, `[out, in]`, float32."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    stored = load_file(folder / "adapter_model.safetensors")
    found = {}
    for key, a in stored.items():
        if key.endswith(FACTOR):
            b = stored[key.replace(FACTOR, ".lora_B.weight")]
            rank = a.shape[0]
            scale = config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)
            module = key.removeprefix("base_model.model.").removesuffix(FACTOR)
            found[module] = _product(b.double() * scale, a.double())
    return found


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Return a matrix product with exact sums, float32, as merges have it (`merge.methods.low_rank`)."""
    bits = (53 - max(0, len(right) - 1).bit_length()) // 2
    return (_on_grid(left, 1, bits) @ _on_grid(right, 0, bits)).float()


def _on_grid(factor: Tensor, axis: int, bits: int) -> Tensor:
    largest = factor.abs().amax(axis, keepdim=True).clamp_(min=2.0**-900)
    power = (largest.view(torch.int64) & (0x7FF << 52)).view(torch.float64)
    unit = power * 2.0 ** (1 - bits)
    return (factor / unit).round_() * unit


def same_place(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two members are of one model, adapters apart."""
    return all(one.get(key) == other.get(key) for key in ("path", "id", "revision"))
