from __future__ import annotations

import os
from tempfile import mkdtemp

import pytest

from evomerge.loggers.trackio import TrackioLogger
from evomerge.testing.loggers import LoggerSuite

os.environ["TRACKIO_DIR"] = mkdtemp(prefix="evomerge-trackio-")  # read when it is imported
trackio = pytest.importorskip("trackio")
storage = pytest.importorskip("trackio.sqlite_storage")


class TestTrackio(LoggerSuite):
    @pytest.fixture
    def kind(self):
        return TrackioLogger

    @pytest.fixture
    def options(self):
        return {"project": "merges"}

    @pytest.fixture
    def read(self):
        def read(run):
            (record,) = [
                one for one in trackio.Api().runs("merges") if one.name == f"small {run.id[:8]}"
            ]
            logs = storage.SQLiteStorage.get_logs("merges", record.name, run_id=record.id)
            found = {}
            for log in sorted(logs, key=lambda log: log["step"]):
                for name, value in log.items():
                    found.setdefault(name, []).append(value)
            return found

        return read
