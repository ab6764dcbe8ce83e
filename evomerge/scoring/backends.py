"""What can score candidates: the resident passes, vLLM live, lm-eval's model types, and what is registered.

Another backend is a class with `Backend`'s members and one entry in `BACKENDS`, or in another package an
entry point of the group `evomerge.backends`. `evomerge.testing.backends` tests what each has to hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from inspect import signature
from types import MappingProxyType
from typing import Any, Literal, Protocol

from evomerge.candidate.trial import Split
from evomerge.scoring.answering import Scored
from evomerge.scoring.live_vllm import VllmScorer
from evomerge.scoring.lm_eval_backend import LmEvalBackend
from evomerge.scoring.scorer import Scorer
from evomerge.tasks.items import Items


class Backend(Protocol):
    """Scores candidates on items.

    Attributes:
        takes: What `score` is given: a resident `module`, or the `folder` of a saved model.
        races: Whether it also has `score_in_blocks`, as `Scorer` has it, for candidates to be given up early.
        gradients: Whether it also has `loss`, as `Scorer` has it, and `score` takes `targets` as there.
    """

    takes: Literal["module", "folder"]
    races: bool
    gradients: bool

    def check(self, metrics: Mapping[str, tuple[str, ...]]) -> None:
        """Raise TaskError where it cannot give these metrics (task → names); no model is needed."""

    def score(
        self,
        model: Any,  # noqa: ANN401 - a module or a folder
        split: Split,
        metrics: Mapping[str, tuple[str, ...]],
        *,
        bootstrap_iterations: int = 0,
    ) -> Scored:
        """Score a candidate on all items of a split, by `LeafValues` and `assemble` of `tasks.scores`."""


BACKENDS: dict[str, type[Any]] = {"resident": Scorer, "vllm": VllmScorer}
"""Name → `Backend`, made as `(items, **arguments)`; any other name is lm-eval's model type."""
BACKENDS |= {point.name: point.load() for point in entry_points(group="evomerge.backends")}


def backend_type(name: str) -> type[Backend]:
    """Return the class behind a name, which says what it takes and can do."""
    return BACKENDS.get(name, LmEvalBackend)


def is_resident(name: str) -> bool:
    """Tell whether a backend is the resident scorer or one that adds to it: it times, and reads prompts."""
    return issubclass(backend_type(name), Scorer)


def open_backend(
    name: str,
    items: Items,
    arguments: Mapping[str, Any] = MappingProxyType({}),
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> Backend:
    """Make a backend of `BACKENDS`, or of lm-eval's model types.

    Args:
        name: Which.
        items: What to score candidates on.
        arguments: The user's.
        defaults: For where `arguments` has none; what the backend's constructor does not name is dropped.

    Raises:
        TaskError: The backend is unknown, or cannot be made.
    """
    if name not in BACKENDS:
        return LmEvalBackend(items, name, arguments, defaults=defaults)
    make = BACKENDS[name]
    named = signature(make).parameters
    backend: Backend = make(
        items, **{key: value for key, value in defaults.items() if key in named} | dict(arguments)
    )
    return backend
