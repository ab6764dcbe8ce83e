"""Stable ids for documents, and splits drawn by hash, for all tasks of a campaign together.

A document's id is a hash of its content, so it survives reordered, extended and filtered data sets;
copies of one document are told apart by their number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xxhash import xxh3_64_intdigest

from evomerge.candidate.trial import SPLITS, Split
from evomerge.errors import TaskError
from evomerge.tasks.documents import content_digest
from evomerge.tasks.requested import Source, SplitPlan

# Last first: how many items the sampler sees then does not move what is reported.
_DRAWING_ORDER: tuple[Split, ...] = ("holdout", "select", "search")


@dataclass(frozen=True)
class DrawnItem:
    """One chosen document."""

    id: str  # stable id, unique in its task
    index: int  # position in the data set's split that it was drawn from
    source: Source | None  # that split; None: the one that lm-eval scores


@dataclass(frozen=True)
class DocumentPool:
    """What one task draws from."""

    task: str  # its name
    ids: Mapping[Source | None, Sequence[str]]  # data set's split → `document_ids` of its documents
    # Likewise, `same_documents` over all tasks: equal labels, same documents
    labels: Mapping[Source | None, Sequence[str]]
    counts: Mapping[Split, int | None]  # split → how many items; None: all that are left


Chosen = dict[Split, tuple[DrawnItem, ...]]


def document_ids(documents: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return one id a document: 16 hex digits of its content's hash, and `-K` for its K-th copy."""
    seen: dict[str, int] = {}
    ids = []
    for document in documents:
        digest = content_digest(document)
        copies = seen.get(digest, 0)
        seen[digest] = copies + 1
        ids.append(f"{digest}-{copies}" if copies else digest)
    return tuple(ids)


def content_of(identifier: str) -> str:
    """Return the part of an id that copies of one document share."""
    return identifier.partition("-")[0]


def draw(pools: Sequence[DocumentPool], plan: SplitPlan) -> list[Chosen]:
    """Choose the items of every split of a plan, for all tasks.

    Documents are ranked by xxh3 of (task, seed, id), or of (seed, label) where several tasks have them;
    copies of a document after all originals. A document is on one side for all tasks. Where tasks that
    overlap leave too few, those with the fewest documents choose first, all their splits.

    Returns:
        For each pool, split → chosen documents in the order of the data set, as lm-eval would score them.

    Raises:
        TaskError: More items are asked than the task has, or are free.
    """
    found, shortage = _Draw(pools, plan).split_by_split()
    if shortage is None:
        return found
    packed, short = _Draw(pools, plan).task_by_task()
    if short is None:
        return packed
    raise _with_advice(shortage, pools, plan)


def share_out(count: int, sizes: Sequence[int]) -> tuple[int, ...]:
    """Share `count` items among tasks in proportion to their sizes, at least one each.

    Largest remainders get what is left, the first first. `count` lies between the number of tasks and the
    sum of `sizes`.
    """
    spare, room = count - len(sizes), [size - 1 for size in sizes]
    total = sum(room)
    exact = [spare * size / total if total else 0.0 for size in room]
    shares = [int(value) for value in exact]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (shares[i] - exact[i], i))
    for index in by_remainder[: spare - sum(shares)]:
        shares[index] += 1
    return tuple(share + 1 for share in shares)


class _Draw:
    """One attempt at a draw; `sides` says on which side a document is."""

    def __init__(self, pools: Sequence[DocumentPool], plan: SplitPlan) -> None:
        self.pools, self.plan = pools, plan
        self.sides: dict[str, Split] = {}
        self.shortage: TaskError | None = None
        owners: dict[str, set[str]] = {}
        for pool in pools:
            for labels in pool.labels.values():
                for label in labels:
                    owners.setdefault(label, set()).add(pool.task)
        self.shared = {label for label, tasks in owners.items() if len(tasks) > 1}

    def split_by_split(self) -> tuple[list[Chosen], TaskError | None]:
        found: list[Chosen] = [{} for _ in self.pools]
        for split in _DRAWING_ORDER:
            for pool, chosen in zip(self.pools, found, strict=True):
                if split in pool.counts:
                    chosen[split] = self._choose(pool, split, packed=False)
        return found, self.shortage

    def task_by_task(self) -> tuple[list[Chosen], TaskError | None]:
        found: list[Chosen] = [{} for _ in self.pools]
        order = sorted(range(len(self.pools)), key=lambda n: (_size(self.pools[n]), n))
        for number in order:
            for split in _DRAWING_ORDER:
                if split in self.pools[number].counts:
                    found[number][split] = self._choose(self.pools[number], split, packed=True)
        return found, self.shortage

    def _choose(self, pool: DocumentPool, split: Split, *, packed: bool) -> tuple[DrawnItem, ...]:
        """Choose a split's items; `packed`: leave as many documents as can be to the other splits."""
        source, count = self.plan.drawn_from.get(split), pool.counts[split]
        ids, labels = pool.ids[source], pool.labels[source]
        free = [n for n in range(len(ids)) if self.sides.get(labels[n], split) == split]
        if count is not None and count > len(free) and not self.plan.first:
            self.shortage = self.shortage or _too_few(pool, split, count, source, self.sides)
        if packed:
            free.sort(key=lambda n: (labels[n] not in self.sides, self._hash(labels[n]), ids[n]))
        elif not self.plan.first:
            free.sort(key=lambda n: ("-" in ids[n], self._rank(pool.task, ids[n], labels[n])))
        chosen = sorted(free[:count])
        self.sides.update((labels[n], split) for n in chosen)
        return tuple(DrawnItem(ids[n], n, source) for n in chosen)

    def _rank(self, task: str, identifier: str, label: str) -> int:
        if label in self.shared:
            return self._hash(label)
        return xxh3_64_intdigest(f"{task}\0{self.plan.seed}\0{identifier}".encode())

    def _hash(self, label: str) -> int:
        return xxh3_64_intdigest(f"\0{self.plan.seed}\0{label}".encode())


def _size(pool: DocumentPool) -> int:
    return sum(map(len, pool.ids.values()))


def _too_few(
    pool: DocumentPool, split: Split, asked: int, source: Source | None, sides: Mapping[str, Split]
) -> TaskError:
    taken = Counter(sides[label] for label in pool.labels[source] if label in sides)
    del taken[split]
    size = len(pool.ids[source])
    of = f'the data set\'s "{source}" split' if source else "the split that is scored"
    if not taken:
        found = f"but it has {size} documents in {of}"
    else:
        others = " and ".join(f"{count} are in {other}" for other, count in taken.items())
        found = (
            f"but only {size - taken.total()} of its {size} documents in {of} are left: {others}"
        )
    return TaskError(f'task "{pool.task}": {asked} items asked for {split}, {found}')


def _with_advice(error: TaskError, pools: Sequence[DocumentPool], plan: SplitPlan) -> TaskError:
    """Add what is asked of each task in all, and which numbers would fit."""
    asked = {split: count for split, count in plan.counts.items() if count is not None}
    said = f"{error.message}; asked for are {_listed(asked)} of each task"
    fitting = _fitting(asked, pools, plan)
    return TaskError(
        f"{said}; {_listed(fitting)} would fit" if fitting else f"{said}; ask for fewer"
    )


def _fitting(
    asked: Mapping[Split, int], pools: Sequence[DocumentPool], plan: SplitPlan
) -> dict[Split, int]:
    """Return the largest numbers in the same proportions that every task has; empty: none are found."""
    if any(dict(pool.counts) != dict(plan.counts) for pool in pools):
        return {}  # the tasks of a group share what is asked for
    fewest = min(_size(pool) for pool in pools)
    for percent in range(min(99, 100 * fewest // sum(asked.values())), 0, -1):
        counts: dict[Split, int] = {split: count * percent // 100 for split, count in asked.items()}
        if not all(counts.values()):
            break
        smaller = [replace(pool, counts={**pool.counts, **counts}) for pool in pools]
        if _Draw(smaller, plan).split_by_split()[1] is None:
            return counts
    return {}


def _listed(counts: Mapping[Split, int]) -> str:
    return ", ".join(f"{split} {counts[split]}" for split in SPLITS if split in counts)
