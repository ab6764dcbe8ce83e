"""Items cut so that they fit into a page: long texts first, then items on which models do not differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from evomerge.report.items import ItemList, TaskItems
from evomerge.report.page.writing import packed

LONGEST = 2_000
"""Letters of a prompt or an answer, where not all fit."""


def fitted(items: ItemList, room: int) -> tuple[Mapping[str, Any], str]:
    """Return `items.to_json()` for a page, and a sentence about what was cut; empty: nothing.

    Args:
        items: All.
        room: Bytes that they may take, packed.
    """
    data = items.to_json()
    size = len(packed(data))
    if size <= room:
        return data, ""
    short = replace(items, tasks=tuple(_clipped(task) for task in items.tasks))
    note = f"Texts are cut to {LONGEST:,} letters"
    total = sum(len(task.ids) for task in items.tasks)
    share = 1.0
    while True:
        kept = short if share == 1 else replace(short, tasks=_some(short, share))
        data = kept.to_json()
        size = len(packed(data))
        count = sum(len(task.ids) for task in kept.tasks)
        if size <= room or not count:
            break
        share *= min(0.9, 0.9 * max(room, 0) / size)
    if count < total:
        note += (
            f", and of {total:,} items {count:,} are here, those first on which the winner differs from "
            "another model"
        )
    return data, f"{note}: a page holds no more."


def _clipped(task: TaskItems) -> TaskItems:
    """Cut long texts; of a prompt the end is kept, where the question is."""
    answers = tuple(
        None if one is None else tuple(text[:LONGEST] for text in one) for one in task.answers
    )
    prompts = tuple(text[-LONGEST:] for text in task.prompts)
    golds = tuple(text[:LONGEST] for text in task.golds)
    return replace(task, prompts=prompts, golds=golds, answers=answers)


def _some(items: ItemList, share: float) -> tuple[TaskItems, ...]:
    """Keep a share of each task's items in their order."""
    others = [at for at in range(len(items.rows)) if at != items.row]
    tasks = []
    for task in items.tasks:
        alike = [
            all(task.standing(item, items.row, at) in ("same", "unknown") for at in others)
            for item in range(len(task.ids))
        ]
        first = sorted(range(len(task.ids)), key=alike.__getitem__)
        tasks.append(task.only(sorted(first[: int(share * len(task.ids))])))
    return tuple(tasks)
