"""What a search tries: a frozen value with a kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

from evomerge.candidate.coefficients import Coefficients
from evomerge.yaml_file import dump

if TYPE_CHECKING:
    from evomerge.candidate.size import Size

Cell = bool | int | float | str
Arrays = Callable[[str], bytes]
"""Digest of an array that a candidate's text names → its bytes."""


def no_arrays(digest: str) -> bytes:
    """Know of no array.

    Raises:
        KeyError: Always.
    """
    raise KeyError(digest)


def number_row(model: str, layers: str, tensors: str, name: str, value: Cell) -> dict[str, Cell]:
    """Return a row of `Candidate.numbers`: what a value stands for, `all` where it holds for all."""
    return {
        "model": model,
        "layers": layers,
        "tensors": tensors,
        "parameter": name,
        "value": value,
    }


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

    @property
    def statistics(self) -> str | None:
        """The statistics file that its method reads; None: it reads none."""
        return None

    @property
    def methods(self) -> tuple[str, ...]:
        """The merge methods that it is made by."""
        return ()

    def arrays(self) -> Mapping[str, bytes]:
        """Return the arrays that its text names by their digests: digest → bytes."""
        return {}

    @property
    def scored_members(self) -> Mapping[str, Candidate]:
        """The members, by name, whose own scores it learns from or answers by; none of most kinds."""
        return {}

    def file(self) -> str:
        """Return it as the file that lies beside a saved model."""
        return dump(json.loads(self.text()))

    def remark(self) -> str:
        """Return what model cards say of it besides; empty: nothing."""
        return ""

    def label(self) -> str:
        """Return one word for tables, such as the method of a merge."""
        return self.kind

    def numbers(self) -> list[dict[str, Cell]]:
        """Return each of its numbers as a row of a table: columns of text, and `value`."""
        return []

    def size(self, base: Size) -> float:
        """Return how many weights it has, as a share of the base's.

        Args:
            base: How many the base has, and where; at least one.
        """
        return 1.0

    def active(self, base: Size) -> float:
        """Return how many of its weights one token is computed with, as a share of all of the base's.

        Where tokens of a prompt take more than others, of a prompt.

        Args:
            base: As of `size`.
        """
        return self.size(base)
