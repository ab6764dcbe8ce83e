"""The results folder: its lock, its study database, its files. Search writes, report reads."""

from evomerge.store.records import Evaluation, StoredBaseline, StoredTrial
from evomerge.store.store import Direction, Store

__all__ = ["Direction", "Evaluation", "Store", "StoredBaseline", "StoredTrial"]
