"""The results folder: its lock, its study database, its files. Search writes, report reads."""

from evomerge.store.folder import TASKS, refuse_existing
from evomerge.store.records import (
    Evaluation,
    StoredBaseline,
    StoredGradient,
    StoredTrial,
    Winner,
)
from evomerge.store.store import Store

__all__ = [
    "TASKS",
    "Evaluation",
    "Store",
    "StoredBaseline",
    "StoredGradient",
    "StoredTrial",
    "Winner",
    "refuse_existing",
]
