"""The zoo's jobs: one seeded generator each."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from evomerge.zoo.jobs import dialogue, extraction, facts, formats, tools, translation, verse
from evomerge.zoo.jobs.draft import Draft

JOBS: dict[str, Callable[[Random], Draft]] = {
    "extraction": extraction.draw,
    "dialogue": dialogue.draw,
    "tools": tools.draw,
    "translation": translation.draw,
    "facts": facts.draw,
    "formats": formats.draw,
    "verse": verse.draw,
}

__all__ = ["JOBS", "Draft"]
