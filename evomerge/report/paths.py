"""Model names that mean the same on another machine: folders as seen from the results folder."""

from __future__ import annotations

import os
from pathlib import Path


def portable(name: str, folder: str | Path) -> str:
    """Return a local path relative to `folder`; a Hub id or a `zoo:` name as it is.

    Args:
        name: A model, as campaigns and recipes name it.
        folder: The results folder.
    """
    return os.path.relpath(name, folder) if Path(name).is_absolute() else name
