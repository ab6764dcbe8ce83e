"""What travels where a model continues prompts of the driver's."""

from __future__ import annotations

from dataclasses import dataclass, field

from evomerge.candidate.candidate import Candidate
from evomerge.candidate.cost import Cost
from evomerge.candidate.trial import Failure


@dataclass(frozen=True)
class WriteJob:
    """Prompts that a model continues greedily.

    Attributes:
        name: What messages call it: `answers of tools to prompts`.
        candidate: The model.
        prompts: As the model reads them.
        max_tokens: Most tokens of a continuation.
        until: Texts at which a continuation ends, and which it is cut at.
    """

    name: str
    candidate: Candidate
    prompts: tuple[str, ...]
    max_tokens: int
    until: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """What came of a `WriteJob`: one of `texts` for each prompt, or a `failure`."""

    texts: tuple[str, ...] = ()
    failure: Failure | None = None
    cost: Cost = field(default_factory=Cost)
    worker: str = ""
