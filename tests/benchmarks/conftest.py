import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.played_campaign import store

__all__ = ["store"]

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:  # `benchmarks` is no part of the installed package
    sys.path.insert(0, str(ROOT))


@pytest.fixture(scope="session", autouse=True)
def _data_sets_leave_no_trace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield
