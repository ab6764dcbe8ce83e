"""The results folder: its lock, its study database, its files. Search writes, report reads."""

from evomerge.store.folder import TASKS, refuse_existing
from evomerge.store.importances import parameter_importances
from evomerge.store.records import (
    Evaluation,
    StoredBaseline,
    StoredGradient,
    StoredTrial,
    Winner,
    by_task,
)
from evomerge.store.store import Store
from evomerge.store.texts import ItemText, keep_texts, read_texts

__all__ = [
    "TASKS",
    "Evaluation",
    "ItemText",
    "Store",
    "StoredBaseline",
    "StoredGradient",
    "StoredTrial",
    "Winner",
    "by_task",
    "keep_texts",
    "parameter_importances",
    "read_texts",
    "refuse_existing",
]
