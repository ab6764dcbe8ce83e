"""The zoo: a small family of language models, and the jobs that its members were trained for."""

from __future__ import annotations

from pathlib import Path

from evomerge.zoo.drawing import Item, items
from evomerge.zoo.jobs import JOBS
from evomerge.zoo.registry import ABOUT, NAMES, PREFIX, resolve

__all__ = ["ABOUT", "JOBS", "NAMES", "PREFIX", "Item", "build", "items", "resolve"]


def build(directory: Path, *, seed: int = 0, progress: bool = True) -> None:
    """Train the whole family from nothing, base then specialists, and write Hugging Face folders.

    Args:
        directory: Where to write `NAME/` for each of `NAMES`, and `hashes.json`.
        seed: Of initial weights and data; 0 gave the shipped family.
        progress: Show a progress bar, and what each model scores on its job, on stderr.

    Raises:
        ModelError: `directory` already holds a model of the family, or cannot be written to.
    """
    # Imported here: the command line resolves names without waiting for torch.
    from evomerge.zoo.family import build_family

    build_family(directory, seed=seed, progress=progress)
