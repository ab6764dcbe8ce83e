"""One model's tensors, memory-mapped; only headers are read until a tensor is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, PretrainedConfig

from evomerge.errors import ModelError
from evomerge.merge.adapter import Adapter
from evomerge.merge.adapter_file import open_adapter
from evomerge.merge.adapter_heads import adapt
from evomerge.merge.files import WeightFiles, weight_files
from evomerge.merge.location import has_tokenizer, locate, split_adapter
from evomerge.merge.names import ModelNames, model_names
from evomerge.merge.quantised import check_config, check_tensors, gguf_error
from evomerge.merge.vocabulary_tensors import untied_config, with_rows

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
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "C64": torch.complex64,
    "BOOL": torch.bool,
}
LFS = b"version https://git-lfs"


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
        folder: Where the config is; for `MODEL+ADAPTER` the model's.
        config: transformers' configuration.
        tensors: Name → header, in the order of the names: the model's own names (`merge.names`), whatever
            the base prefix in the file, and without the buffers that transformers ignores.
        mapped: All tensors are views of their files; otherwise some are computed at each call (`adapted`).
        adapted: The tensors that are computed, which an adapter changes or a vocabulary fills up.
        missing: Parameters of the model that no file gives.
        tokens_from: Where the tokenizer is, of an adapter that brings tokens; None: in `folder`.
        views: Tensor → what tells its values from those of other checkpoints of this name (`rows`).
    """

    name: str
    folder: Path
    config: PretrainedConfig
    tensors: Mapping[str, TensorHeader]
    _read: Callable[[str], torch.Tensor] = field(repr=False)
    mapped: bool = True
    adapted: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    tokens_from: Path | None = None
    views: Mapping[str, Hashable] = field(default_factory=dict, repr=False)

    def key(self, tensor: str) -> tuple[Hashable, ...]:
        """Return what tells the values of one tensor from those of all other models' tensors.

        What an adapter leaves as it is has the key of the model's own tensor.
        """
        if self.is_mapped(tensor) and tensor not in self.views:
            return str(self.folder), tensor, None
        return self.name, tensor, self.views.get(tensor)

    def is_mapped(self, tensor: str) -> bool:
        """Tell whether a tensor is a view of its file; otherwise it is computed at each call."""
        return self.mapped or tensor not in self.adapted

    @property
    def tokenizer_folder(self) -> Path:
        """Where its tokenizer is."""
        return self.folder if self.tokens_from is None else self.tokens_from

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
        ModelError: The folder or repository is missing; it has no config or no weights that transformers
            would load; it is quantised; a file is truncated or a shard missing; the adapter is of a kind
            that cannot be merged, or names a module that the model has not.
    """
    name, adapter = split_adapter(model)
    folder = locate(name, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    if not (folder / "config.json").is_file() and (folder / "adapter_config.json").is_file():
        raise ModelError(f"is a LoRA adapter, not a model; name it as MODEL+{model}", file=folder)
    check_config(folder)
    config = _config(folder, trust_remote_code)
    files = weight_files(
        folder, named=getattr(config, "transformers_weights", None), allow_pickle=allow_pickle
    )
    names = model_names(config, trust_remote_code=trust_remote_code)
    opened_as = _open_pickles if files.pickled else _open_safetensors
    stored, read_stored = opened_as(files, None if names is None else names.state)
    _check_index(files, stored, names)
    places = _places(files, stored, names)
    opened = Checkpoint(
        name=model,
        folder=folder,
        config=config,
        tensors={name: stored[place] for name, place in places.items()},
        _read=lambda name: read_stored(places[name]),
        missing=frozenset() if names is None or not names.own_class else names.missing(stored),
    )
    if adapter is None:
        return opened
    lora = open_adapter(locate(adapter, allow_pickle=allow_pickle), allow_pickle=allow_pickle)
    return _with_adapter(opened, lora)


def _with_adapter(model: Checkpoint, adapter: Adapter) -> Checkpoint:
    shapes = {name: header.shape for name, header in model.tensors.items()}
    adapted = adapt(adapter, model.config, shapes, model.tensor)
    headers = {
        name: TensorHeader(shape, torch.float32)
        if name in adapted.touched
        else model.tensors[adapted.origin[name]]
        for name, shape in sorted(adapted.shapes.items())
    }
    has_tokens = adapted.resizes and has_tokenizer(adapter.folder)
    config = untied_config(model.config) if adapted.unties else model.config
    return replace(
        model,
        config=with_rows(config, shapes, adapted.shapes),
        tensors=headers,
        tokens_from=adapter.folder if has_tokens else None,
        mapped=False,
        adapted=adapted.touched,
        _read=adapted.read,
    )


def _config(folder: Path, trust_remote_code: bool) -> PretrainedConfig:
    path = folder / "config.json"
    if not path.is_file():
        for gguf in sorted(folder.glob("*.gguf")):
            raise gguf_error(gguf)
        raise ModelError("no config.json; expected a model in Hugging Face format", file=folder)
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError, StrictDataclassError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"not a configuration that transformers reads: {reason}", file=path
        ) from None


def _places(
    files: WeightFiles, stored: Mapping[str, TensorHeader], names: ModelNames | None
) -> dict[str, str]:
    """The model's own name of each tensor → its name in the file; in the order of the former."""
    places: dict[str, str] = {}
    for place in stored:
        name = place if names is None else names.canonical(place)
        if name is None:
            continue
        if name in places:
            raise ModelError(
                f"holds {places[name]} and {place}, which are one tensor of the model",
                file=files.index or files.files[0],
            )
        places[name] = place
    return dict(sorted(places.items()))


def _check_index(
    files: WeightFiles, stored: Mapping[str, TensorHeader], names: ModelNames | None
) -> None:
    """Check that the shards hold what the index says; tied heads and ignored buffers may be missing."""
    lost = sorted(files.mapped.keys() - stored.keys())
    if names is not None:
        lost = names.lost(lost, stored)
    if lost:
        raise ModelError(
            f"says that {files.mapped[lost[0]]} holds {lost[0]}, which it does not; copy or download "
            "the model again",
            file=files.index,
        )


def _open_safetensors(
    files: WeightFiles, own: Mapping[str, bool] | None
) -> tuple[dict[str, TensorHeader], Callable[[str], torch.Tensor]]:
    owner: dict[str, tuple[Any, Path]] = {}
    headers: dict[str, TensorHeader] = {}
    for file in files.files:
        handle = _safe_open(file)
        pieces = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118
        stored_as = {name: piece.get_dtype() for name, piece in pieces.items()}
        check_tensors(file, {name: DTYPES.get(kind) for name, kind in stored_as.items()}, own)
        for name, piece in pieces.items():
            if name in owner:
                raise ModelError(f"holds {name}, and so does {owner[name][1].name}", file=file)
            owner[name] = (handle, file)
            headers[name] = TensorHeader(tuple(piece.get_shape()), DTYPES[stored_as[name]])

    def read(name: str) -> torch.Tensor:
        handle, file = owner[name]
        try:
            tensor: torch.Tensor = handle.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{name} cannot be read: {error}", file=file) from None
        return tensor

    return headers, read


def _safe_open(file: Path) -> Any:  # noqa: ANN401 - safetensors' handle has no type
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        with file.open("rb") as content:
            if content.read(len(LFS)) == LFS:
                raise ModelError(
                    "is a pointer of Git LFS, not the weights; fetch them with git lfs pull",
                    file=file,
                ) from None
        raise ModelError(
            f"truncated or not a safetensors file ({error}); copy or download it again", file=file
        ) from None


def _open_pickles(
    files: WeightFiles, own: Mapping[str, bool] | None
) -> tuple[dict[str, TensorHeader], Callable[[str], torch.Tensor]]:
    tensors: dict[str, torch.Tensor] = {}
    for file in files.files:
        try:
            found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(
                f"cannot be read as a PyTorch checkpoint: {reason}", file=file
            ) from None
        if not isinstance(found, Mapping) or not all(map(torch.is_tensor, found.values())):
            raise ModelError(
                "holds something else than tensors by name; expected what torch.save makes of a "
                "model's state_dict",
                file=file,
            )
        check_tensors(file, {name: tensor.dtype for name, tensor in found.items()}, own)
        tensors.update(found)
    headers = {
        name: TensorHeader(tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()
    }
    return headers, tensors.__getitem__
