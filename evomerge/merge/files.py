"""Which files of a folder are the model: those that transformers 5.23 `from_pretrained` loads, no others.

`transformers_weights` of the config where it is given; else `model.safetensors`; else the shards that
`model.safetensors.index.json` names; else, where pickles are allowed, `pytorch_model.bin` and its index. A
second set of files beside them (`consolidated.safetensors`, a variant, an older index) is never looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from evomerge.errors import ModelError
from evomerge.merge.quantised import gguf_error

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"
SUFFIXES = {".safetensors", ".bin", ".gguf", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".npz"}
SHOWN = 3  # foreign files that a message lists


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
        raise _nothing(folder)
    if not allow_pickle:
        raise ModelError(
            f"only a PyTorch pickle ({pickles[0]}), which can run code when it is read; "
            "convert it to safetensors, or allow pickles if you trust it",
            file=folder,
        )
    if pickles[0] == PICKLE:
        return WeightFiles((folder / PICKLE,), None, {}, pickled=True)
    return _sharded(folder / PICKLE_INDEX, pickled=True)


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


def _nothing(folder: Path) -> ModelError:
    found = sorted(
        path.name
        for path in folder.iterdir()
        if path.is_file() and (path.suffix in SUFFIXES or path.name.endswith(".index.json"))
    )
    looked_for = f"neither {SINGLE} nor {INDEX}, which transformers loads"
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
