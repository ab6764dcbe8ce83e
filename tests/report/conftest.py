from __future__ import annotations

import pytest

from evomerge.report.leaderboard import Leaderboard, leaderboard
from evomerge.store import Store
from tests.played_campaign import lab, make_store, store

__all__ = ["lab", "make_store", "store"]


@pytest.fixture(scope="session")
def board(store: Store) -> Leaderboard:
    """The leaderboard of the finished campaign."""
    return leaderboard(store)
