"""What a search tries: a frozen value with a kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol, Self


class Candidate(Protocol):
    """A model to be: everything that is needed to build it.

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

    def file(self) -> str:
        """Return it as the file that a user reads, and that lies beside a saved model."""

    def label(self) -> str:
        """Return one word for tables, such as the method of a merge."""

    def numbers(self) -> list[dict[str, bool | int | float | str]]:
        """Return each of its numbers as a row of a table: columns of text, and `value`."""

    def size(self, layers: tuple[int, ...], rest: int) -> float:
        """Return its weights as a share of the base's.

        Args:
            layers: How many weights the base has in each layer; empty where nobody counted.
            rest: How many it has outside the layers.
        """
