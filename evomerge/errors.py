"""Every error that evomerge raises on purpose.

A message says what was found, what was expected and what to do. `UserError` and what derives from it
mean that the input was wrong (exit status 2 on the command line); the rest are failures (status 1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class EvomergeError(Exception):
    """Root of all errors raised on purpose; shown as one line, never as a traceback."""


class UserError(EvomergeError):
    """The user's input is wrong.

    Args:
        message: What was found, what was expected, what to do; one line.
        file: The file at fault.
        line: Line in that file, counted from 1.
        field: Dotted path of the field at fault, such as `space.parameters.weight`.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str | Path | None = None,
        line: int | None = None,
        field: str | None = None,
    ) -> None:
        self.message = message
        self.file = None if file is None else str(file)
        self.line = line
        self.field = field
        super().__init__(self._one_line())

    def _one_line(self) -> str:
        place = self.file or ""
        if self.file and self.line is not None:
            place += f":{self.line}"
        parts = [part for part in (place, self.field) if part]
        return " ".join(": ".join([*parts, self.message]).split())


class CampaignError(UserError):
    """A campaign file, or a value in it, is wrong."""


class RecipeError(UserError):
    """A recipe (a mergekit YAML file), or a value in it, is wrong."""


class ModelError(UserError):
    """A model's files are missing, damaged, or do not fit the others of its family."""


class UnlikeTokensError(ModelError):
    """Models have unlike vocabularies, and nothing says whose tokens a merge has."""


class TaskError(UserError):
    """An lm-eval task, or one of its metrics, splits or items, is missing or unusable."""


class ResultsError(UserError):
    """A results folder exists, is missing, is in use, or holds something unexpected."""


class MergeError(EvomergeError):
    """The merge of a valid recipe cannot be computed, such as opposed inputs on a sphere."""


class CampaignStopped(EvomergeError):  # noqa: N818 - it states an outcome
    """A campaign stopped before its budget was spent; the message says why."""


class Interrupted(EvomergeError):  # noqa: N818 - it states an outcome
    """The user interrupted a campaign; the message says how to go on."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint that names what comes closest to `name`, or lists what is known.

    The clause, such as `did you mean "ties"?`, is to be appended to a message.
    """
    names = sorted(known)
    plain = {re.sub(r"[-_ ]", "", each.lower()): each for each in names}
    close = get_close_matches(name, names, n=1, cutoff=0.6)
    close += get_close_matches(re.sub(r"[-_ ]", "", name.lower()), plain, n=1, cutoff=0.6)
    return (
        f'did you mean "{plain.get(close[0], close[0])}"?'
        if close
        else f"known: {', '.join(names)}"
    )
