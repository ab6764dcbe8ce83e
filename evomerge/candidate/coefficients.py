"""What single tensors and their rows add to the weights of a merge: one array a tensor, and its file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from evomerge.candidate.tables import Tables

FILE = "coefficients.safetensors"
"""Beside a recipe whose weights differ by tensor or row."""
NEEDS_COEFFICIENTS = (
    f"Its weights differ by tensor and row: `{FILE}`, beside the recipe, holds what is added to them and is "
    "needed to build this model. mergekit does not read that file, and so cannot build this merge."
)
"""For model cards."""


@dataclass(frozen=True, eq=False, repr=False)
class Coefficients(Tables):
    """What is added to the weights that hold for a group of layers.

    The weight of an expert in a row of a tensor is its group's plus what stands here. A row is an entry of
    the tensor's first axis as it is stored: the weights of one output, one token's embedding, one number
    of a norm.

    Attributes:
        tables: Tensor → float32 `[experts, rows]`; `[experts, 1]`: the same for all rows. A tensor that is
            left out has nothing added.
    """

    about: ClassVar[str] = "coefficients"
    axes: ClassVar[str] = "[experts, rows]"
