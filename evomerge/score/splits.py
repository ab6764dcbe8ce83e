"""Stable ids for documents, and splits drawn by hash.

A document's id is a hash of its content, so it survives reordered, extended and filtered data sets;
copies of one document are told apart by their number.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xxhash import xxh3_64_hexdigest, xxh3_64_intdigest

from evomerge.errors import TaskError
from evomerge.score.requested import Source, SplitPlan
from evomerge.trial import Split

# Last first: how many items the sampler sees then never moves what is reported.
_DRAWING_ORDER: tuple[Split, ...] = ("holdout", "select", "search")


@dataclass(frozen=True)
class Drawn:
    """One chosen document.

    Attributes:
        id: Stable id, unique in its task.
        index: Position in the data set's split that it was drawn from.
        source: That split; None: the one that lm-eval scores.
    """

    id: str
    index: int
    source: Source | None


def document_ids(documents: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return one id a document: 16 hex digits of its content's hash, and `-K` for its K-th copy."""
    seen: dict[str, int] = {}
    ids = []
    for document in documents:
        content = json.dumps(document, sort_keys=True, ensure_ascii=False, default=str)
        digest = xxh3_64_hexdigest(content.encode())
        copies = seen.get(digest, 0)
        seen[digest] = copies + 1
        ids.append(f"{digest}-{copies}" if copies else digest)
    return tuple(ids)


def content_of(identifier: str) -> str:
    """Return the part of an id that copies of one document share."""
    return identifier.partition("-")[0]


def draw(
    task: str, ids: Mapping[Source | None, Sequence[str]], plan: SplitPlan
) -> dict[Split, tuple[Drawn, ...]]:
    """Choose the items of every split of a plan.

    Items are ranked by xxh3 of (task, seed, id), copies of a document after all originals. No two
    splits share a document, copies included.

    Args:
        task: The task's name.
        ids: Data set's split → `document_ids` of its documents.
        plan: Counts per split (of this very task), seed and sources.

    Returns:
        Split → chosen documents in the order of the data set, as lm-eval would score them.

    Raises:
        TaskError: More items are asked than the task has.
    """
    taken: set[str] = set()
    splits: dict[Split, tuple[Drawn, ...]] = {}
    for split in _DRAWING_ORDER:
        if split not in plan.counts:
            continue
        source = plan.drawn_from.get(split)
        count = plan.counts[split]
        free = [
            (index, identifier)
            for index, identifier in enumerate(ids[source])
            if content_of(identifier) not in taken
        ]
        if count is not None and count > len(free) and not plan.first:
            raise _too_many(task, split, count, len(free), len(ids[source]), source)
        if not plan.first:
            free.sort(key=lambda entry: ("-" in entry[1], _rank(task, plan.seed, entry[1])))
        chosen = sorted(free[:count])
        taken.update(content_of(identifier) for _, identifier in chosen)
        splits[split] = tuple(Drawn(identifier, index, source) for index, identifier in chosen)
    return splits


def share_out(count: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """Share `count` items among tasks in proportion to their sizes, at least one each.

    Largest remainders get what is left, the first first.

    Args:
        count: At least the number of tasks, at most the sum of `sizes`.
        sizes: Documents of each task, at least 1.
    """
    spare, room = count - len(sizes), [size - 1 for size in sizes]
    total = sum(room)
    exact = [spare * size / total if total else 0.0 for size in room]
    shares = [int(value) for value in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (shares[i] - exact[i], i))
    for index in by_remainder[: spare - sum(shares)]:
        shares[index] += 1
    return tuple(share + 1 for share in shares)


def _rank(task: str, seed: int, identifier: str) -> int:
    return xxh3_64_intdigest(f"{task}\0{seed}\0{identifier}".encode())


def _too_many(
    task: str, split: Split, asked: int, free: int, size: int, source: Source | None
) -> TaskError:
    of = f'the data set\'s "{source}" split' if source else "the split that is scored"
    rest = "" if free == size else f", {free} of them not in another split"
    return TaskError(
        f'task "{task}": {asked} items asked for {split}, but it has {size} in {of}{rest}; ask for fewer'
    )
