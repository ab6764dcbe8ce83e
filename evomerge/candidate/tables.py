"""Arrays that belong to a candidate: known by their digest, written as one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import xxhash

Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, eq=False, repr=False)
class Tables:
    """Matrices by name: what a candidate has learnt, or more numbers than a text should hold.

    Attributes:
        tables: Name → float32 matrix.
    """

    about: ClassVar[str] = "tables"
    """What the file says that it holds."""
    axes: ClassVar[str] = "[rows, columns]"
    """What the axes of a matrix are, for messages."""

    tables: Mapping[str, Array]

    @cached_property
    def digest(self) -> str:
        """Equal for equal tables: xxh3, 128 bits, hexadecimal."""
        return xxhash.xxh3_128_hexdigest(self.content)

    @cached_property
    def content(self) -> bytes:
        """The bytes of a safetensors file: a tensor for each of `tables`."""
        from safetensors.numpy import save

        tables = {name: np.ascontiguousarray(self.tables[name]) for name in sorted(self.tables)}
        return bytes(save(tables, {"format": f"evomerge {self.about}"}))

    @property
    def count(self) -> int:
        """How many numbers there are."""
        return sum(table.size for table in self.tables.values())

    @classmethod
    def read(cls, content: bytes) -> Self:
        """Return the tables whose `content` this is.

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
            raise ValueError(f"found {error.args[0]}, expected float32 {cls.axes}") from None
        for name, table in tables.items():
            if table.dtype != np.float32 or table.ndim != 2:
                raise ValueError(
                    f"{name}: found {table.dtype} of {table.ndim} dimensions, expected float32 "
                    f"{cls.axes}"
                )
        return cls(tables)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        name, count = type(self).__name__, len(self.tables)
        return f"{name}({count} tensors, {self.count} numbers, {self.digest[:8]})"
