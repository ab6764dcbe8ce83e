"""Which files of a folder are the model, and the tensors in them, each read when it is asked for.

The files are those that transformers 5.23 `from_pretrained` loads, no others:

`transformers_weights` of the config where it is given; else `model.safetensors`; else the shards that
`model.safetensors.index.json` names; else, where pickles are allowed, `pytorch_model.bin` and its index. A
second set of files beside them (`consolidated.safetensors`, a variant, an older index) is never looked at.
"""

from __future__ import annotations

import json
import math
import mmap
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open

from evomerge.errors import ModelError
from evomerge.merge.quantised import check_tensors, gguf_error

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"
SUFFIXES = {".safetensors", ".bin", ".gguf", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".npz"}
SHOWN = 3  # foreign files that a message lists
ALLOW = (
    "convert it to safetensors, or allow pickles if you trust it (--allow-pickle; in a campaign "
    "models.allow_pickle: true)"
)
_LENGTH = 8  # bytes that say how long a safetensors file's header is
_HUGE_PAGE, _ALIAS = 2**21, 2**28
LFS = b"version https://git-lfs"
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


@dataclass(frozen=True)
class TensorHeader:
    """What a file says of a tensor before its values are read.

    Attributes:
        shape: As stored.
        dtype: As stored; float32 where a LoRA adapter is added to it.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def numel(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the values, in that dtype."""
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True)
class WeightFiles:
    """The files that hold a model's tensors.

    Attributes:
        files: In the order in which transformers reads them.
        index: The index that names them; None for a single file.
        mapped: Tensor → file name, as the index says; empty for a single file.
        pickled: They are PyTorch pickles.
    """

    files: tuple[Path, ...]
    index: Path | None
    mapped: Mapping[str, str]
    pickled: bool = False


def weight_files(folder: Path, *, named: object = None, allow_pickle: bool = False) -> WeightFiles:
    """Find the weights of a folder.

    Args:
        folder: A model's.
        named: `transformers_weights` of its config.
        allow_pickle: Accept PyTorch pickles where there is no safetensors file.

    Raises:
        ModelError: There are none, only pickles, or an index is damaged or names a file that is missing.
    """
    if named is not None:
        return _named(folder, named)
    if (folder / SINGLE).is_file():
        return WeightFiles((folder / SINGLE,), None, {})
    if (folder / INDEX).is_file():
        return _sharded(folder / INDEX)
    pickles = [name for name in (PICKLE, PICKLE_INDEX) if (folder / name).is_file()]
    if not pickles:
        raise _nothing(folder, allow_pickle)
    if not allow_pickle:
        raise pickle_error(folder, pickles[0])
    if pickles[0] == PICKLE:
        return WeightFiles((folder / PICKLE,), None, {}, pickled=True)
    return _sharded(folder / PICKLE_INDEX, pickled=True)


def stored_tensors(
    files: WeightFiles, own: Mapping[str, bool] | None
) -> tuple[dict[str, TensorHeader], Callable[[str], torch.Tensor]]:
    """Open the files.

    Args:
        files: Of a model.
        own: The model's own names of its tensors → whether they are floating-point numbers; None: not known.

    Returns:
        The headers by the names in the files, and what reads a tensor: a view of its file.

    Raises:
        ModelError: A file is damaged, holds something else than weights, or a tensor that another holds.
    """
    return (_open_pickles if files.pickled else _open_safetensors)(files, own)


def pickled_tensors(file: Path) -> dict[str, torch.Tensor]:
    """Read a PyTorch pickle, without letting it run code.

    Raises:
        ModelError: It is damaged, would run code, or holds something else than tensors by name.
    """
    try:
        mapped = is_zipfile(file)  # torch maps no files of before 1.6
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"cannot be read as a PyTorch file: {reason}", file=file) from None
    if not isinstance(found, Mapping) or not all(map(torch.is_tensor, found.values())):
        raise ModelError(
            "holds something else than tensors by name; expected what torch.save makes of a "
            "model's state_dict",
            file=file,
        )
    return dict(found)


def pickle_error(folder: Path, name: str) -> ModelError:
    """Return the error for a folder whose weights are a pickle."""
    return ModelError(
        f"only a PyTorch pickle ({name}), which can run code when it is read; {ALLOW}",
        file=folder,
    )


def safetensors_error(file: Path, error: Exception) -> ModelError:
    """Return the error for a file that safetensors cannot read."""
    with file.open("rb") as content:
        if content.read(len(LFS)) == LFS:
            return ModelError(
                "is a pointer of Git LFS, not the weights; fetch them with git lfs pull", file=file
            )
    return ModelError(
        f"truncated or not a safetensors file ({error}); copy or download it again", file=file
    )


def _open_safetensors(
    files: WeightFiles, own: Mapping[str, bool] | None
) -> tuple[dict[str, TensorHeader], Callable[[str], torch.Tensor]]:
    owner: dict[str, Path] = {}
    headers: dict[str, TensorHeader] = {}
    places: dict[str, tuple[torch.Tensor, int, int]] = {}
    gaps = []
    for file in files.files:
        try:
            with safe_open(file, framework="pt"):  # checks it
                entries, start = _entries(file)
        except (SafetensorError, OSError) as error:
            raise safetensors_error(file, error) from None
        check_tensors(file, {name: DTYPES.get(one["dtype"]) for name, one in entries.items()}, own)
        gaps.append(_gap_before(file))
        whole = torch.from_file(str(file), size=file.stat().st_size, dtype=torch.uint8)
        for name, one in entries.items():
            if name in owner:
                raise ModelError(f"holds {name}, and so does {owner[name].name}", file=file)
            owner[name] = file
            headers[name] = TensorHeader(tuple(one["shape"]), DTYPES[one["dtype"]])
            begin, end = one["data_offsets"]
            places[name] = whole, start + begin, start + end

    def read(name: str, _held: Sequence[object] = gaps) -> torch.Tensor:
        (whole, begin, end), header = places[name], headers[name]
        content = whole[begin:end]
        if begin % header.dtype.itemsize:
            content = content.clone()  # old files hold numbers at any byte
        return content.view(header.dtype).view(header.shape)

    return headers, read


def _entries(file: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Return what a safetensors file says of its tensors, and where the values begin."""
    with file.open("rb") as content:
        size = int.from_bytes(content.read(_LENGTH), "little")
        entries: dict[str, dict[str, Any]] = json.loads(content.read(size))
    entries.pop("__metadata__", None)
    return entries, _LENGTH + size


def _gap_before(file: Path) -> object:
    """Reserve addresses, no memory, so that equal files do not lie a multiple of 256 MiB apart.

    An AMD Zen's first cache finds lines by a hash of their address, and reads such files at once at half the
    speed. The system maps one file below the other, in huge pages.
    """
    apart = -(-file.stat().st_size // _HUGE_PAGE) * _HUGE_PAGE
    if apart % (_ALIAS // 8) or sys.platform != "linux":
        return None
    return mmap.mmap(-1, _ALIAS + 17 * _HUGE_PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 0)


def _open_pickles(
    files: WeightFiles, own: Mapping[str, bool] | None
) -> tuple[dict[str, TensorHeader], Callable[[str], torch.Tensor]]:
    tensors: dict[str, torch.Tensor] = {}
    for file in files.files:
        found = pickled_tensors(file)
        check_tensors(file, {name: tensor.dtype for name, tensor in found.items()}, own)
        tensors |= found
    headers = {name: TensorHeader(tuple(one.shape), one.dtype) for name, one in tensors.items()}
    return headers, tensors.__getitem__


def _named(folder: Path, named: object) -> WeightFiles:
    single = isinstance(named, str) and named.endswith(".safetensors")
    if not (single or str(named).endswith(".safetensors.index.json")) or not _inside(named):
        raise ModelError(
            f"found {named!r}, expected a *.safetensors or *.safetensors.index.json in this folder",
            file=folder / "config.json",
            field="transformers_weights",
        )
    path = folder / str(named)
    if not path.is_file():
        raise ModelError(
            f"names {named}, which is missing; copy or download the model again",
            file=folder / "config.json",
            field="transformers_weights",
        )
    return WeightFiles((path,), None, {}) if single else _sharded(path)


def _sharded(index: Path, *, pickled: bool = False) -> WeightFiles:
    try:
        mapped = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(mapped.values()))
        if not names or not all(_inside(name) for name in names):
            raise ValueError
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise ModelError(
            "not an index of shards; expected a weight_map of tensor to file name", file=index
        ) from None
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise ModelError(
            f"names shard {missing[0]}, which is missing ({len(missing)} of {len(names)} missing); "
            "copy or download the model again",
            file=index,
        )
    return WeightFiles(tuple(index.parent / name for name in names), index, mapped, pickled)


def _inside(name: object) -> bool:
    """Tell whether a file name stays within its folder."""
    if not isinstance(name, str) or not name:
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _nothing(folder: Path, allow_pickle: bool) -> ModelError:
    found = sorted(
        path.name
        for path in folder.iterdir()
        if path.is_file() and (path.suffix in SUFFIXES or path.name.endswith(".index.json"))
    )
    looked_for = f"neither {SINGLE} nor {INDEX}, which transformers loads"
    if not found and folder.parent.name == "snapshots" and not allow_pickle:
        return ModelError(
            f"{looked_for}; PyTorch pickles of a Hub repository are downloaded only where they are "
            f"allowed: if it has nothing else, {ALLOW}",
            file=folder,
        )
    if not found:
        return ModelError(f"{looked_for}; copy or download the model again", file=folder)
    if all(name.endswith(".gguf") for name in found):
        return gguf_error(folder / found[0])
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ModelError(
        f"{looked_for}; found {', '.join(found[:SHOWN])}{more}, which it does not: save the model "
        "with transformers' save_pretrained, or rename the file if it is one",
        file=folder,
    )
