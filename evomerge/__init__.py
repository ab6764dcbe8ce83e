"""evomerge searches for the best way to merge fine-tuned language models of one family.

    import evomerge

    result = evomerge.search("campaign.yaml")     # or a Campaign
    result = evomerge.open("results/campaign")    # a finished or running one
    evomerge.merge(result.best.recipe, "merged")

The rooms behind three of these functions share their names: import from their modules, as in
`from evomerge.search.study import Study`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evomerge.api import (
        adapters,
        add,
        check,
        compare,
        explain,
        export,
        load,
        merge,
        open,
        push,
        remove,
        report,
        resume,
        score,
        search,
        statistics,
    )
    from evomerge.candidate import Recipe
    from evomerge.config import Campaign
    from evomerge.loggers import Callback
    from evomerge.merge.methods import Parameter
    from evomerge.merge.methods.declared import method
    from evomerge.result import Result

__version__ = "0.1.0"
__all__ = [
    "Callback",
    "Campaign",
    "Parameter",
    "Recipe",
    "Result",
    "adapters",
    "add",
    "check",
    "compare",
    "explain",
    "export",
    "load",
    "merge",
    "method",
    "open",
    "push",
    "remove",
    "report",
    "resume",
    "score",
    "search",
    "statistics",
]

_ELSEWHERE = {
    "Callback": "evomerge.loggers",
    "Campaign": "evomerge.config",
    "Parameter": "evomerge.merge.methods",
    "Recipe": "evomerge.candidate",
    "Result": "evomerge.result",
    "method": "evomerge.merge.methods.declared",
}

# The import system hangs a room on the package once, when it first imports it. These are empty, so that is
# done here, and their names are then the functions'.
for _room in ("merge", "report", "search"):
    importlib.import_module(f"evomerge.{_room}")
    del globals()[_room]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    """Import a public name on first use, so that `evomerge --help` stays quick."""
    if name not in __all__:
        raise AttributeError(f"module 'evomerge' has no attribute {name!r}")
    return getattr(importlib.import_module(_ELSEWHERE.get(name, "evomerge.api")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
