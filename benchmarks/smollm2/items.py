"""The real items of a job: reading them, holding some back, rendering them as chat text."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Message = dict[str, str]
Render = Callable[[Sequence[Message]], str]
"""Chat messages → the prompt text, ending where the assistant's answer begins."""


@dataclass(frozen=True)
class Item:
    """One exercise: chat messages and the exact gold answer (the chat end token not included)."""

    id: str
    messages: tuple[Message, ...]
    answer: str

    @property
    def folded(self) -> str:
        """The last message without case, punctuation and spacing: what makes two items the same."""
        return " ".join(re.findall(r"\w+", self.messages[-1]["content"].lower()))


def jobs(folder: Path) -> list[str]:
    """Names of the sub-folders that hold `train.jsonl` and `test.jsonl`, sorted."""
    return sorted(path.parent.name for path in folder.glob("*/train.jsonl"))


def read(path: Path) -> list[Item]:
    """Items of a JSON-lines file with `id`, `messages` and `answer` on every line.

    Raises:
        ValueError: A line that is not such an object, or has an empty answer; it names the line.
    """
    found = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                item = Item(str(row["id"]), tuple(row["messages"]), row["answer"])
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}:{number}: expected an object with id, messages and answer ({error})"
                ) from error
            if not item.messages or not item.answer.strip():
                raise ValueError(f"{path}:{number}: item {item.id} has no message or no answer")
            found.append(item)
    return found


def hold_back(items: Sequence[Item], count: int, seed: int) -> tuple[list[Item], list[Item]]:
    """Split items into those to train on and at least `count` held back for search and select.

    Items are drawn by a hash of the seed and their folded text, so that the split depends neither
    on the order of the file nor on the other items, and items that differ only in case or
    punctuation stay on one side.

    Returns:
        (train, held back), each in the order of the hash.

    Raises:
        ValueError: Nothing would be left to train on.
    """
    ordered = sorted(items, key=lambda item: (_draw(seed, item.folded), item.id))
    cut = count
    while 0 < cut < len(ordered) and ordered[cut].folded == ordered[cut - 1].folded:
        cut += 1
    if cut >= len(ordered):
        raise ValueError(f"cannot hold back {count} of {len(ordered)} items: hold back fewer")
    return ordered[cut:], ordered[:cut]


def _draw(seed: int, text: str) -> str:
    return hashlib.sha256(f"{seed}\0{text}".encode()).hexdigest()
