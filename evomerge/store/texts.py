"""Prompts and gold answers of a campaign's items, kept so that reports need neither tasks nor data sets."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from evomerge.candidate.trial import Split
from evomerge.store.events import ArrayTable


class ItemText(NamedTuple):
    """What an item asks, and what is right.

    Attributes:
        prompt: As models read it, few-shot examples and chat template included.
        gold: What follows the prompt where the answer is right; empty where the item has no gold answer.
    """

    prompt: str
    gold: str


def keep_texts(
    arrays: ArrayTable, split: Split, texts: Mapping[str, Sequence[tuple[str, str]]]
) -> None:
    """Keep the texts of a split's items: task → (prompt, gold) of each, in the order of their ids."""
    content = json.dumps({task: list(each) for task, each in texts.items()}, separators=(",", ":"))
    arrays.keep(_key(split), zlib.compress(content.encode()))


def read_texts(arrays: ArrayTable, split: Split) -> dict[str, tuple[ItemText, ...]]:
    """Return what `keep_texts` kept; empty where nothing was kept of the split."""
    if not arrays.has(_key(split)):
        return {}
    found = json.loads(zlib.decompress(arrays.get(_key(split))))
    return {task: tuple(ItemText(*each) for each in of_task) for task, of_task in found.items()}


def _key(split: Split) -> str:
    return f"item texts of {split}"
