"""Weights as safetensors files, written tensor by tensor: one at a time is in memory."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from pathlib import Path

import torch

from evomerge.errors import MergeError
from evomerge.merge.files import DTYPES, INDEX, SINGLE, TensorHeader

SHARD_BYTES = 5 * 10**9
_CODES = {dtype: code for code, dtype in DTYPES.items()}
_ALIGNED = 8  # where the values begin
_FLUSHED = 2**27  # bytes that go to the disk while more are merged


def write_tensors(
    tensors: Iterable[tuple[str, torch.Tensor]],
    headers: Mapping[str, TensorHeader],
    folder: Path,
    limit: int = SHARD_BYTES,
    *,
    indexed: bool = False,
) -> None:
    """Write weights as safetensors files, and their index where there are several or where `indexed`.

    vLLM takes every safetensors file of a folder for weights, coefficients too, unless an index says which.

    Args:
        tensors: Name and tensor, one after another.
        headers: Name → shape and dtype, in the same order.
        folder: Where to.
        limit: Largest file, unless one tensor is larger.
        indexed: Write an index of one file, too.

    Raises:
        MergeError: A tensor is not what its header says.
        OSError: The disk does not take them.
    """
    shards = _shards(headers, limit)
    files = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    if len(shards) == 1:
        files = [SINGLE]
    source = iter(tensors)
    for file, names in zip(files, shards, strict=True):
        _write_file(folder / file, {name: headers[name] for name in names}, source)
    if len(shards) > 1 or indexed:
        weight_map = {
            name: file for file, names in zip(files, shards, strict=True) for name in names
        }
        total = sum(header.nbytes for header in headers.values())
        index = {
            "metadata": {"total_size": total},
            "weight_map": dict(sorted(weight_map.items())),
        }
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_file(
    path: Path, headers: Mapping[str, TensorHeader], source: Iterator[tuple[str, torch.Tensor]]
) -> None:
    """Write one file, its header first; tensors stand in the order in which safetensors puts them.

    A thread waits for the disk meanwhile; little is left to sync at the end.
    """
    places: dict[str, int] = {}
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(headers, key=lambda name: (-headers[name].dtype.itemsize, name)):
        header, places[name] = headers[name], end
        end += header.nbytes
        entries[name] = {
            "dtype": _CODES[header.dtype],
            "shape": list(header.shape),
            "data_offsets": [places[name], end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNED)
    flushing: Future[None] | None = None
    unflushed = 0
    with path.open("wb", buffering=0) as file, ThreadPoolExecutor(1) as pool:
        _reserve(file, 8 + len(text) + end)
        _put(file, len(text).to_bytes(8, "little") + text, 0)
        for _ in headers:
            name, tensor = next(source)
            if TensorHeader(tuple(tensor.shape), tensor.dtype) != headers[name]:
                raise MergeError(
                    f"{name} is {tensor.shape}, {tensor.dtype}; planned {headers[name]}"
                )
            values = tensor.to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy()
            _put(file, values.data, 8 + len(text) + places[name])
            unflushed += values.nbytes
            if unflushed >= _FLUSHED and (flushing is None or flushing.done()):
                _check(flushing)
                flushing, unflushed = pool.submit(os.fsync, file.fileno()), 0
        _check(flushing)


def _check(flushing: Future[None] | None) -> None:
    """Wait for the disk; raises its error."""
    if flushing is not None:
        flushing.result()


def _reserve(file: FileIO, size: int) -> None:
    """Take the room that a file needs, if the file system can: a full disk is found before any work is done.

    Pages of a reserved file are filled faster, too. `os.posix_fallocate` writes into every block of a file
    system that cannot.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(file.fileno(), 0, ctypes.c_int64(0), ctypes.c_int64(size)):
        code = ctypes.get_errno()
        if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(code, os.strerror(code))


def _put(file: FileIO, content: bytes | memoryview, place: int) -> None:
    """Write all of it: systems take 2 GiB at once at most."""
    view = memoryview(content)
    file.seek(place)
    while len(view):
        view = view[file.write(view) :]


def _shards(headers: Mapping[str, TensorHeader], limit: int) -> Sequence[Sequence[str]]:
    """Fill files in order, none above `limit` unless one tensor alone is."""
    shards: list[list[str]] = []
    filled = 0
    for name, header in headers.items():
        if not shards or filled + header.nbytes > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += header.nbytes
    return shards
