"""How fast a model is beside the base."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """How fast a model continues prompts, timed in alternation with the base on the same worker.

    Attributes:
        milliseconds: A prompt that is read and continued, of several at once.
        base_milliseconds: Of the base.
        relative: The model's time as a multiple of the base's.
        spread: Half the range of that multiple over the turns.
        tokens: That each prompt is continued by.
    """

    milliseconds: float
    base_milliseconds: float
    relative: float
    spread: float
    tokens: int

    @property
    def tokens_per_second(self) -> float:
        """Of all prompts together, the time that it takes to read them included."""
        return 1000 * self.tokens / self.milliseconds
