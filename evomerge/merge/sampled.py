"""A hash that tells one file from another without reading all of it: its size, and bytes sampled from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SAMPLE_BYTES = 1 << 16
SAMPLES = 64


def sample(digest: Any, path: Path) -> None:  # noqa: ANN401 - one of xxhash or hashlib
    """Add a file to a hash: all of it up to 4 MiB, of a larger one 64 samples of 64 KiB.

    The first and the last bytes are among the samples, which lie at equal distances. Weights that were
    trained differ almost everywhere, so that a few samples tell.

    Raises:
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    digest.update(str(size).encode())
    with path.open("rb") as file:
        if size <= SAMPLES * SAMPLE_BYTES:
            digest.update(file.read())
            return
        for number in range(SAMPLES):
            file.seek(number * (size - SAMPLE_BYTES) // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
