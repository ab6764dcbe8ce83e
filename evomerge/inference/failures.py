"""Why a module has no scores: states of a candidate, not faults of the user's input."""

from __future__ import annotations

from evomerge.errors import EvomergeError


class NotFinite(EvomergeError):  # noqa: N818 - it states an outcome
    """The module's logits are NaN or infinite."""


class EngineLost(RuntimeError):  # noqa: N818 - it states an outcome
    """An engine that writes texts broke off in the middle: what it would say from now on is not known."""


class Collapsed(EvomergeError):  # noqa: N818 - it states an outcome
    """The module writes the same degenerate text, whatever it is asked."""
