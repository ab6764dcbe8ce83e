"""evomerge searches for the best way to merge fine-tuned language models of one family.

    import evomerge

    result = evomerge.search("campaign.yaml")     # or a Campaign
    result = evomerge.open("results/campaign")    # a finished or running one
    evomerge.merge(result.best.recipe, "merged")

Some of these functions share their names with the rooms that do the work (`evomerge.search.Study`), so
those modules can be called.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evomerge.api import check, compare, merge, open, report, resume, score, search
    from evomerge.candidate import Recipe
    from evomerge.config import Campaign
    from evomerge.result import Result

__version__ = "0.1.0"
__all__ = [
    "Campaign",
    "Recipe",
    "Result",
    "check",
    "compare",
    "merge",
    "open",
    "report",
    "resume",
    "score",
    "search",
]

_WHERE = {
    "Campaign": "evomerge.config",
    "Recipe": "evomerge.candidate",
    "Result": "evomerge.result",
    "check": "evomerge.api",
    "compare": "evomerge.api",
    "open": "evomerge.api",
    "resume": "evomerge.api",
    "score": "evomerge.api",
}
_CALLED = ("merge", "report", "search")


class _CallableRoom(ModuleType):
    """A room that is a function of the Python API too, and shows that function's signature and help."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the function's own
        """Call the function that carries the room's name."""
        return _function(self.__name__)(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(_function(self.__name__))

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        function, room = _function(self.__name__), self.__dict__.get("__doc__") or ""
        name = self.__name__.rpartition(".")[2]
        shown = f"{name}{inspect.signature(function)}\n\n{inspect.getdoc(function)}"
        return f"{shown}\n\nThe module of the same name: {room}"


def _function(room: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(
        importlib.import_module("evomerge.api"), room.rpartition(".")[2]
    )
    return function


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


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package
