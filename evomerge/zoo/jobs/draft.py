"""What every job's generator returns: one drawn case, before it becomes an item."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Draft:
    """One case of a job.

    Attributes:
        content: What decides between train and test; cases of equal content fall on the same side.
        turns: The conversation: user, assistant, user, ...; the last one is the user's.
        answers: The right answer in the canonical format, then in other formats.
        wrong: Wrong answers in the canonical format, all different; at least three.
    """

    content: str
    turns: tuple[str, ...]
    answers: tuple[str, ...]
    wrong: tuple[str, ...]
