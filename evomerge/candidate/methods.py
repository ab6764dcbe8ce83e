"""Names of the merge methods and of their parameters, for answers before any heavy library is imported.

`evomerge.merge.METHODS` holds the methods themselves; a test holds the two to each other.
"""

from __future__ import annotations

from collections.abc import Mapping

from evomerge.errors import nearest

_TASK_VECTORS = ("weight", "normalize", "lambda")

PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "linear": ("weight", "normalize"),
    "slerp": ("t",),
    "task_arithmetic": _TASK_VECTORS,
    "ties": (*_TASK_VECTORS, "density", "rescale"),
    "dare_linear": (*_TASK_VECTORS, "density", "rescale"),
    "dare_ties": (*_TASK_VECTORS, "density", "rescale"),
    "passthrough": ("scale",),
}
"""Method → its parameters."""

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


def fault_of_method(name: str) -> str | None:
    """Return what is wrong with a method's name; None for the name of a method.

    The nearest known name is given; for a method of mergekit's that is not here, all are.
    """
    if name in NOT_SUPPORTED:
        return (
            f'"{name}" is a method of mergekit that is not supported here; supported: '
            f"{', '.join(sorted(PARAMETERS))}"
        )
    return None if name in PARAMETERS else f'unknown method "{name}"; {nearest(name, PARAMETERS)}'
