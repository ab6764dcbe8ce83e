"""Every merge method by name; a new one is a pure function in a module of its own and one line here."""

from __future__ import annotations

from collections.abc import Mapping

from evomerge.candidate.methods import fault_of_method
from evomerge.errors import RecipeError
from evomerge.merge.methods.linear import LINEAR
from evomerge.merge.methods.method import Method
from evomerge.merge.methods.passthrough import PASSTHROUGH
from evomerge.merge.methods.slerp import SLERP
from evomerge.merge.methods.task_arithmetic import family_member, largest_entries, random_entries

_ALL = (
    LINEAR,
    SLERP,
    family_member("task_arithmetic", None, elect=False, normalize=False, rescale=False),
    family_member("ties", largest_entries, elect=True, normalize=True, rescale=False),
    family_member("dare_linear", random_entries, elect=False, normalize=False, rescale=True),
    family_member("dare_ties", random_entries, elect=True, normalize=False, rescale=True),
    PASSTHROUGH,
)
METHODS: Mapping[str, Method] = {method.name: method for method in _ALL}


def method(name: str) -> Method:
    """Return the method of that name.

    Raises:
        RecipeError: There is none; the nearest known name is given, for a method of mergekit's all are.
    """
    fault = fault_of_method(name)
    if fault is not None:
        raise RecipeError(fault, field="merge_method")
    return METHODS[name]
