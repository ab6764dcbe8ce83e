"""What single tensors and their rows add to the weights of a merge: one array a tensor, and its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xxhash

Array = np.ndarray[Any, np.dtype[np.float32]]
FILE = "coefficients.safetensors"
"""Beside a recipe whose weights differ by tensor or row."""
NEEDS_COEFFICIENTS = (
    f"Its weights differ by tensor and row: `{FILE}`, beside the recipe, holds what is added to them and is "
    "needed to build this model. mergekit does not read that file, and so cannot build this merge."
)
"""For model cards."""


@dataclass(frozen=True, eq=False)
class Coefficients:
    """What is added to the weights that hold for a group of layers.

    The weight of an expert in a row of a tensor is its group's plus what stands here. A row is an entry of
    the tensor's first axis as it is stored: the weights of one output, one token's embedding, one number
    of a norm.

    Attributes:
        tables: Tensor → float32 `[experts, rows]`; `[experts, 1]`: the same for all rows. A tensor that is
            left out has nothing added.
    """

    tables: Mapping[str, Array]

    @cached_property
    def digest(self) -> str:
        """Equal for equal coefficients: xxh3, 128 bits, hexadecimal."""
        return xxhash.xxh3_128_hexdigest(self.content)

    @cached_property
    def content(self) -> bytes:
        """The bytes of a safetensors file: a tensor `[experts, rows]` for each of `tables`."""
        from safetensors.numpy import save

        tables = {name: np.ascontiguousarray(self.tables[name]) for name in sorted(self.tables)}
        return bytes(save(tables, {"format": "evomerge coefficients"}))

    @property
    def count(self) -> int:
        """How many numbers there are."""
        return sum(table.size for table in self.tables.values())

    @classmethod
    def read(cls, content: bytes) -> Coefficients:
        """Return the coefficients whose `content` this is.

        Raises:
            ValueError: It is no safetensors file of float32 matrices.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            tables = load(content)
        except SafetensorError as error:
            raise ValueError(f"not a safetensors file ({error})") from None
        except KeyError as error:  # a dtype that NumPy does not have
            raise ValueError(f"found {error.args[0]}, expected float32 [experts, rows]") from None
        for name, table in tables.items():
            if table.dtype != np.float32 or table.ndim != 2:
                raise ValueError(
                    f"{name}: found {table.dtype} of {table.ndim} dimensions, expected float32 "
                    "[experts, rows]"
                )
        return cls(tables)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Coefficients) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Coefficients({len(self.tables)} tensors, {self.count} numbers, {self.digest[:8]})"
