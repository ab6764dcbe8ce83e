"""The results folder: its lock, its study database, its files. Search writes, report reads."""

from evomerge.store.records import (
    Evaluation,
    StoredBaseline,
    StoredGradient,
    StoredTrial,
    Told,
    Winner,
)
from evomerge.store.store import Direction, Store

__all__ = [
    "Direction",
    "Evaluation",
    "Store",
    "StoredBaseline",
    "StoredGradient",
    "StoredTrial",
    "Told",
    "Winner",
]
