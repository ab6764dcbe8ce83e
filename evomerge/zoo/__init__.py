"""The zoo: a small family of language models, and the jobs that its members were trained for."""

from __future__ import annotations

from pathlib import Path

from evomerge.zoo.drawing import Item, items
from evomerge.zoo.jobs import JOBS
from evomerge.zoo.registry import ABOUT, NAMES, resolve

__all__ = ["ABOUT", "JOBS", "NAMES", "Item", "build", "items", "resolve"]


def build(directory: Path, *, seed: int = 0, progress: bool = True) -> None:
    """Train the whole family from nothing: base, then specialists; see `evomerge.zoo.family`.

    Args:
        directory: Where to write `NAME/` for each of `NAMES`, and `hashes.json`.
        seed: Of initial weights and data.
        progress: Show a progress bar on stderr.

    Raises:
        ModelError: `directory` already holds a model of the family.
    """
    # Imported here: the command line resolves names without waiting for torch.
    from evomerge.zoo.family import build_family

    build_family(directory, seed=seed, progress=progress)
