from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.played_campaign import lab, make_store, store

__all__ = ["lab", "make_store", "store"]


@pytest.fixture(scope="session")
def driver() -> ModuleType:
    """The fake campaign of `driver.py`, which is also run as a process and killed."""
    spec = importlib.util.spec_from_file_location(
        "search_driver", Path(__file__).parent / "driver.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def choices(driver: ModuleType) -> ModuleType:
    """The synthetic objective of `choices.py`, in which methods and subsets of experts differ."""
    spec = importlib.util.spec_from_file_location(
        "search_choices", Path(__file__).parent / "choices.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
