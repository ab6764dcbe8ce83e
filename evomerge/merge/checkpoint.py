"""One model's tensors, memory-mapped; only headers are read until a tensor is asked for."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PretrainedConfig

from evomerge.errors import ModelError
from evomerge.merge.adapter import Adapter, open_adapter
from evomerge.merge.location import locate, split_adapter

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class TensorHeader:
    """What a file says of a tensor before its values are read.

    Attributes:
        shape: As stored.
        dtype: As stored; float32 where a LoRA adapter is added to it.
        nbytes: In that dtype.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def numel(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk.

    Attributes:
        name: As it was asked for.
        folder: Where config and tokenizer are; for `MODEL+ADAPTER` the model's.
        config: transformers' configuration.
        tensors: Name → header, in the order of the names.
        mapped: A tensor is a view of its file; otherwise (an adapter) it is computed at each call.
    """

    name: str
    folder: Path
    config: PretrainedConfig
    tensors: Mapping[str, TensorHeader]
    _read: Callable[[str], torch.Tensor] = field(repr=False)
    mapped: bool = True

    def tensor(self, name: str) -> torch.Tensor:
        """Return one tensor as it is stored, on the CPU; a view of the file: never write into it.

        Raises:
            ModelError: The model has no such tensor, or its file can no longer be read.
        """
        if name not in self.tensors:
            raise ModelError(f"has no tensor {name}", file=self.name)
        return self._read(name)


def open_checkpoint(
    model: str, *, allow_pickle: bool = False, trust_remote_code: bool = False
) -> Checkpoint:
    """Open a model: a folder, a Hub id, or `MODEL+ADAPTER` for a LoRA adapter on top of a model.

    Args:
        model: Its name; a Hub id may carry `@revision`.
        allow_pickle: Accept `pytorch_model.bin` where there is no safetensors file.
        trust_remote_code: Let transformers run the model's own configuration code.

    Raises:
        ModelError: The folder or repository is missing; it has no config or no safetensors; a file is
            truncated or a shard missing; the adapter is of a kind that cannot be merged, or names a
            module that the model has not.
    """
    name, adapter = split_adapter(model)
    folder = locate(name, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    if not (folder / "config.json").is_file() and (folder / "adapter_config.json").is_file():
        raise ModelError(f"is a LoRA adapter, not a model; name it as MODEL+{model}", file=folder)
    config = _config(folder, trust_remote_code)
    headers, read = _open_tensors(folder, allow_pickle)
    if adapter is None:
        return Checkpoint(model, folder, config, headers, read)
    lora = open_adapter(locate(adapter, allow_pickle=allow_pickle))
    return _with_adapter(Checkpoint(model, folder, config, headers, read), lora)


def _with_adapter(model: Checkpoint, adapter: Adapter) -> Checkpoint:
    adapter.check({name: header.shape for name, header in model.tensors.items()})
    headers = {
        name: TensorHeader(header.shape, torch.float32) if name in adapter.touched else header
        for name, header in model.tensors.items()
    }

    def read(name: str) -> torch.Tensor:
        stored = model.tensor(name)
        return adapter.applied(name, stored) if name in adapter.touched else stored

    return Checkpoint(model.name, model.folder, model.config, headers, read, mapped=False)


def _config(folder: Path, trust_remote_code: bool) -> PretrainedConfig:
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError("no config.json; expected a model in Hugging Face format", file=folder)
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError, StrictDataclassError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"not a configuration that transformers reads: {reason}", file=path
        ) from None


def _open_tensors(
    folder: Path, allow_pickle: bool
) -> tuple[dict[str, TensorHeader], Callable[[str], torch.Tensor]]:
    for index in sorted(folder.glob("*.safetensors.index.json")):
        return _open_safetensors(_shards(index))
    single = folder / "model.safetensors"
    files = [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    if files:
        return _open_safetensors(files)
    pickles = sorted(folder.glob("pytorch_model*.bin"))
    if not pickles:
        raise ModelError("no *.safetensors file in this folder", file=folder)
    if not allow_pickle:
        raise ModelError(
            f"only a PyTorch pickle ({pickles[0].name}), which can run code when it is read; "
            "convert it to safetensors, or allow pickles if you trust it",
            file=folder,
        )
    return _open_pickles(pickles)


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise ModelError("not an index of safetensors shards", file=index) from None
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise ModelError(
            f"names shard {missing[0]}, which is missing ({len(missing)} of {len(names)} missing); "
            "copy or download the model again",
            file=index,
        )
    return [index.parent / name for name in names]


def _open_safetensors(
    files: list[Path],
) -> tuple[dict[str, TensorHeader], Callable[[str], torch.Tensor]]:
    owner: dict[str, tuple[Any, Path]] = {}
    headers: dict[str, TensorHeader] = {}
    for file in files:
        try:
            handle: Any = safe_open(file, framework="pt")
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"truncated or not a safetensors file ({error}); copy or download it again",
                file=file,
            ) from None
        for name in handle.keys():  # noqa: SIM118 - a handle is no mapping
            if name in owner:
                raise ModelError(f"holds {name}, and so does {owner[name][1].name}", file=file)
            piece = handle.get_slice(name)
            if piece.get_dtype() not in DTYPES:
                raise ModelError(
                    f"{name} is stored as {piece.get_dtype()}, which cannot be merged", file=file
                )
            owner[name] = (handle, file)
            headers[name] = TensorHeader(tuple(piece.get_shape()), DTYPES[piece.get_dtype()])

    def read(name: str) -> torch.Tensor:
        handle, file = owner[name]
        try:
            tensor: torch.Tensor = handle.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{name} cannot be read: {error}", file=file) from None
        return tensor

    return dict(sorted(headers.items())), read


def _open_pickles(
    files: list[Path],
) -> tuple[dict[str, TensorHeader], Callable[[str], torch.Tensor]]:
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            tensors.update(torch.load(file, map_location="cpu", weights_only=True, mmap=True))
        except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(
                f"cannot be read as a PyTorch checkpoint: {reason}", file=file
            ) from None
    headers = {
        name: TensorHeader(tuple(tensor.shape), tensor.dtype)
        for name, tensor in sorted(tensors.items())
    }
    return headers, tensors.__getitem__
