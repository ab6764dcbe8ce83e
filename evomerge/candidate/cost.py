"""What an evaluation took."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Cost:
    """What an evaluation took.

    Attributes:
        merge_seconds: Writing the weights into the live model.
        score_seconds: Scoring, forward passes and metrics.
        items: Items scored.
        generated_tokens: Tokens that were generated (0 where nothing is).
        copied_tokens: Generated tokens an item of the outcome that this is a copy of, which cost nothing.
        began: Unix time at which the worker began, by its own clock; None where nobody worked.
    """

    merge_seconds: float = 0.0
    score_seconds: float = 0.0
    items: int = 0
    generated_tokens: int = 0
    copied_tokens: float = 0.0
    began: float | None = field(default=None, compare=False)

    @property
    def tokens_per_item(self) -> float:
        """Generated tokens an item; 0 where no item was scored."""
        return self.generated_tokens / self.items if self.items else self.copied_tokens

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.merge_seconds + other.merge_seconds,
            self.score_seconds + other.score_seconds,
            self.items + other.items,
            self.generated_tokens + other.generated_tokens,
        )

    def copy(self) -> Cost:
        """Return what a copy of the outcome costs."""
        return Cost(copied_tokens=self.tokens_per_item)
