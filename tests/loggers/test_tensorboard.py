from __future__ import annotations

import pytest

from evomerge.loggers import LoggedRun
from evomerge.loggers.tensorboard import TensorboardLogger
from evomerge.testing.loggers import LoggerSuite

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def events(run: LoggedRun):
    found = accumulator.EventAccumulator(str(run.folder))
    found.Reload()
    return found


class TestTensorboard(LoggerSuite):
    @pytest.fixture
    def kind(self):
        return TensorboardLogger

    @pytest.fixture
    def read(self):
        def read(run):
            found = events(run)
            return {
                tag: [event.value for event in found.Scalars(tag)]
                for tag in found.Tags()["scalars"]
            }

        return read
