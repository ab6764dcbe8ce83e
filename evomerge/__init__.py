"""evomerge searches for the best way to merge fine-tuned language models of one family.

`evomerge.search(campaign)` and `evomerge.merge(recipe, folder)` share their names with the rooms that
do the work, so those two modules can be called.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evomerge.campaign import Campaign
    from evomerge.recipe import Recipe
    from evomerge.run import Result, resume

__version__ = "0.1.0"
__all__ = ["Campaign", "Recipe", "Result", "merge", "resume", "search"]

_WHERE = {
    "Campaign": "evomerge.campaign",
    "Recipe": "evomerge.recipe",
    "Result": "evomerge.run",
    "resume": "evomerge.run",
}
_CALLED = {"search": ("evomerge.run", "search"), "merge": ("evomerge.merge", "save")}


class _CallableRoom(ModuleType):
    """A room that is a function of the Python API too."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the function's own
        """Call what carries the room's name: `evomerge.run.search`, `evomerge.merge.save`."""
        module, function = _CALLED[self.__name__.rpartition(".")[2]]
        return getattr(importlib.import_module(module), function)(*args, **kwargs)


class _Package(ModuleType):
    """Makes a room callable at the moment the import system hangs it on the package."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _CALLED and isinstance(value, ModuleType):
            value.__class__ = _CallableRoom
        super().__setattr__(name, value)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    """Import a public name on first use, so that `evomerge --help` stays quick."""
    if name in _CALLED:
        return importlib.import_module(f"evomerge.{name}")
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'evomerge' has no attribute {name!r}")


sys.modules[__name__].__class__ = _Package
