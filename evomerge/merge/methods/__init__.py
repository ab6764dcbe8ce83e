"""Merge methods by name: pure tensor maths. A new one is a file with its `Method` and one line in `METHODS`.

A method of another package has an entry point of the group `evomerge.methods` instead of that line. Nothing
here imports torch before something is merged.
"""

from __future__ import annotations

from importlib.metadata import entry_points

from evomerge.errors import RecipeError, nearest
from evomerge.merge.methods.linear import LINEAR
from evomerge.merge.methods.method import Inputs, Method, NumberGradients, Parameter
from evomerge.merge.methods.passthrough import PASSTHROUGH
from evomerge.merge.methods.slerp import SLERP
from evomerge.merge.methods.task_arithmetic import (
    DARE_LINEAR,
    DARE_TIES,
    TASK_ARITHMETIC,
    TIES,
)

__all__ = ["METHODS", "Inputs", "Method", "NumberGradients", "Parameter", "method"]

METHODS: dict[str, Method] = {
    "linear": LINEAR,
    "slerp": SLERP,
    "task_arithmetic": TASK_ARITHMETIC,
    "ties": TIES,
    "dare_linear": DARE_LINEAR,
    "dare_ties": DARE_TIES,
    "passthrough": PASSTHROUGH,
}
METHODS |= {point.name: point.load() for point in entry_points(group="evomerge.methods")}

NOT_SUPPORTED = (
    "arcee_fusion",
    "breadcrumbs",
    "breadcrumbs_ties",
    "della",
    "della_linear",
    "karcher",
    "model_stock",
    "multislerp",
    "nearswap",
    "nuslerp",
    "ram",
    "ramplus_tl",
    "sce",
)
"""What mergekit 0.1.5 has beside these."""


def method(name: str) -> Method:
    """Return the method of that name.

    Raises:
        RecipeError: There is none; the nearest known name is given, for a method of mergekit's all are.
    """
    if name in METHODS:
        return METHODS[name]
    fault = f'unknown method "{name}"; {nearest(name, METHODS)}'
    if name in NOT_SUPPORTED:
        known = ", ".join(sorted(METHODS))
        fault = f'"{name}" is a method of mergekit that is not supported here; supported: {known}'
    raise RecipeError(fault, field="merge_method")
