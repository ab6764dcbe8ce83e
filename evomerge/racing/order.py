"""The order in which a candidate's items are scored: drawn at random, for each trial again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise

from xxhash import xxh3_64_intdigest

from evomerge.candidate.trial import Race

Item = tuple[str, int]
"""Task, and position among its items."""


def item_order(race: Race) -> tuple[Item, ...]:
    """Return all items of a race in the order in which they are scored.

    Every order is equally likely, whatever the candidate and its rivals: items are ranked by xxh3 of
    (seed, trial, task, position), so the draw is the same on every machine.
    """
    return _drawn(race.seed, race.number, _sizes(race))


def looks(race: Race) -> tuple[int, ...]:
    """Return how many items are scored after each block.

    Blocks differ by one item at most, but for the first: it goes on until every task has an item in it.
    """
    order = item_order(race)
    first = 1 + max(map([task for task, _ in order].index, race.expected))
    edges = (round(len(order) * block / race.blocks) for block in range(1, race.blocks + 1))
    return tuple(sorted({max(first, edge) for edge in edges}))


def blocks(race: Race) -> tuple[Mapping[str, tuple[int, ...]], ...]:
    """Return, for each block, task → positions of its items, ascending; tasks without any left out."""
    order = item_order(race)
    return tuple(_by_task(order[start:stop]) for start, stop in pairwise((0, *looks(race))))


def _sizes(race: Race) -> tuple[tuple[str, int], ...]:
    return tuple((task, len(values)) for task, values in race.expected.items())


@lru_cache(maxsize=16)
def _drawn(seed: int, number: int, sizes: tuple[tuple[str, int], ...]) -> tuple[Item, ...]:
    items = [(task, position) for task, size in sizes for position in range(size)]
    return tuple(sorted(items, key=lambda item: (_rank(seed, number, item), item)))


def _rank(seed: int, number: int, item: Item) -> int:
    return xxh3_64_intdigest(f"{seed}\0{number}\0{item[0]}\0{item[1]}".encode())


def _by_task(items: tuple[Item, ...]) -> dict[str, tuple[int, ...]]:
    found: dict[str, list[int]] = {}
    for task, position in items:
        found.setdefault(task, []).append(position)
    return {task: tuple(sorted(positions)) for task, positions in found.items()}
