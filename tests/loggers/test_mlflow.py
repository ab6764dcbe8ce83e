from __future__ import annotations

import pytest

from evomerge.loggers.mlflow import MlflowLogger
from evomerge.testing.loggers import LoggerSuite

mlflow = pytest.importorskip("mlflow")
pytestmark = pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")  # in mlflow


def runs(run):
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{run.folder}/mlflow.db")
    experiment = client.get_experiment_by_name("merges")
    return client, client.search_runs([experiment.experiment_id])


class TestMlflow(LoggerSuite):
    @pytest.fixture
    def kind(self):
        return MlflowLogger

    @pytest.fixture
    def options(self):
        return {"experiment": "merges"}

    @pytest.fixture
    def read(self):
        def read(run):
            client, (found,) = runs(run)
            return {
                name: [
                    one.value
                    for one in sorted(
                        client.get_metric_history(found.info.run_id, name), key=lambda m: m.step
                    )
                ]
                for name in found.data.metrics
            }

        return read
