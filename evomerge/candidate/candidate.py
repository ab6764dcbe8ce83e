"""What a search tries: a frozen value with a kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol, Self

from evomerge.candidate.coefficients import Coefficients
from evomerge.yaml_file import dump

Cell = bool | int | float | str
Arrays = Callable[[str], bytes]
"""Digest of an array that a candidate's text names → its bytes."""


def no_arrays(digest: str) -> bytes:
    """Know of no array.

    Raises:
        KeyError: Always.
    """
    raise KeyError(digest)


class Candidate(Protocol):
    """A model to be: everything that is needed to build it. A kind derives a frozen dataclass from this.

    Attributes:
        kind: Name of its kind (a key of `kinds.KINDS`), which builds, saves and reads it.
    """

    kind: ClassVar[str]

    def model_names(self) -> tuple[str, ...]:
        """Return every model that it is made from, the base first, each once."""

    def renamed(self, rename: Callable[[str], str]) -> Self:
        """Return the same candidate with each model's name replaced."""

    def text(self) -> str:
        """Return it as one line of JSON, floats in full: equal candidates have equal texts."""
        return json.dumps({"kind": self.kind, **vars(self)}, default=vars)

    @property
    def coefficients(self) -> Coefficients | None:
        """What single tensors and rows add to its weights; None: nothing."""
        return None

    def arrays(self) -> Mapping[str, bytes]:
        """Return the arrays that its text names by their digests: digest → bytes."""
        return {}

    def file(self) -> str:
        """Return it as the file that lies beside a saved model."""
        return dump(json.loads(self.text()))

    def label(self) -> str:
        """Return one word for tables, such as the method of a merge."""
        return self.kind

    def numbers(self) -> list[dict[str, Cell]]:
        """Return each of its numbers as a row of a table: columns of text, and `value`."""
        return []

    def size(self, layers: tuple[int, ...], rest: int) -> float:
        """Return its weights as a share of the base's.

        Args:
            layers: How many weights the base has in each layer; empty where not counted.
            rest: How many it has outside the layers.
        """
        return 1.0
