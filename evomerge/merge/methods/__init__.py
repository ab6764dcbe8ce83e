"""Merge methods by name: pure tensor maths. A new one is a file with its `Method` and one line in `METHODS`.

A method of another package has an entry point of the group `evomerge.methods` instead of that line. Nothing
here imports torch before something is merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points

from evomerge.errors import RecipeError, nearest
from evomerge.merge.methods.arcee_fusion import ARCEE_FUSION
from evomerge.merge.methods.calibration import calibrated
from evomerge.merge.methods.core_space import with_core_space
from evomerge.merge.methods.iso import ISO_C, ISO_CTS
from evomerge.merge.methods.karcher import KARCHER
from evomerge.merge.methods.linear import LINEAR
from evomerge.merge.methods.method import Inputs, Method, NumberGradients, Parameter
from evomerge.merge.methods.model_stock import MODEL_STOCK
from evomerge.merge.methods.multislerp import MULTISLERP
from evomerge.merge.methods.nearswap import NEARSWAP
from evomerge.merge.methods.nuslerp import NUSLERP
from evomerge.merge.methods.passthrough import PASSTHROUGH
from evomerge.merge.methods.ram import RAM, RAMPLUS_TL
from evomerge.merge.methods.regmean import REGMEAN
from evomerge.merge.methods.sce import SCE
from evomerge.merge.methods.slerp import SLERP
from evomerge.merge.methods.task_arithmetic import (
    BREADCRUMBS,
    BREADCRUMBS_TIES,
    DARE_LINEAR,
    DARE_TIES,
    DELLA,
    DELLA_LINEAR,
    TASK_ARITHMETIC,
    TIES,
)
from evomerge.merge.methods.tsv import TSV

__all__ = [
    "METHODS",
    "Inputs",
    "Method",
    "NumberGradients",
    "Parameter",
    "mergekit_lacks",
    "method",
]

METHODS: dict[str, Method] = {
    one.name: with_core_space(one) if one.reads_deltas else one
    for one in (
        LINEAR,
        SLERP,
        NUSLERP,
        MULTISLERP,
        KARCHER,
        *map(
            calibrated,
            (
                TASK_ARITHMETIC,
                TIES,
                DARE_LINEAR,
                DARE_TIES,
                BREADCRUMBS,
                BREADCRUMBS_TIES,
                DELLA,
                DELLA_LINEAR,
                SCE,
                RAM,
                RAMPLUS_TL,
                MODEL_STOCK,
                TSV,
                ISO_C,
                ISO_CTS,
                REGMEAN,
            ),
        ),
        NEARSWAP,
        ARCEE_FUSION,
        PASSTHROUGH,
    )
}
METHODS |= {point.name: point.load() for point in entry_points(group="evomerge.methods")}


def method(name: str) -> Method:
    """Return the method of that name.

    Raises:
        RecipeError: There is none; the nearest known name is given.
    """
    if name in METHODS:
        return METHODS[name]
    raise RecipeError(f'unknown method "{name}"; {nearest(name, METHODS)}', field="merge_method")


def mergekit_lacks(names: Iterable[str], scopes: Iterable[Mapping[str, object]] = ()) -> str:
    """Return what a model card says of methods and parameters that mergekit does not know; empty: none.

    Args:
        names: The methods that a model was merged by; those of a user's file have a remark of their own.
        scopes: Parameter → its setting, where such a method has one.
    """
    used = [METHODS[name] for name in dict.fromkeys(names) if name in METHODS]
    lacking = [one.name for one in used if one.beyond_mergekit]
    known = {name for one in used for name, spec in one.parameters.items() if spec.beyond_mergekit}
    lacking += [name for name in sorted(known) if any(scope.get(name) for scope in scopes)]
    listed = " and no ".join(f"`{name}`" for name in lacking)
    return listed and f"mergekit has no {listed}, and cannot build this merge."
