"""MLflow: a run of an experiment, in a local database or on a server that the user names."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from evomerge.loggers.callback import (
    LoggedRun,
    Logger,
    StageEnded,
    TrialEnded,
    flat,
)

if TYPE_CHECKING:
    from evomerge.result import Result

TAG = "evomerge.run"
"""By which a resumed campaign finds its run."""
DATABASE = "mlflow.db"
AT_ONCE = 100
"""Parameters, or metrics, of one request at most."""
LONGEST = 500
"""Characters of a parameter's value, which older servers take."""


class MlflowLogger(Logger):
    """Metrics by trial; of stages and the winner a value each; the leaderboard as an artifact.

    Args:
        run: The campaign.
        experiment: Of MLflow.
        tracking_uri: A server, or another store; None: `MLFLOW_TRACKING_URI`, else a local database.
    """

    package: ClassVar[str] = "mlflow"
    install: ClassVar[str] = "'evomerge[mlflow]'"

    def __init__(
        self, run: LoggedRun, *, experiment: str = "evomerge", tracking_uri: str | None = None
    ) -> None:
        super().__init__(run)
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        uri, artifacts = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI"), None
        if uri is None:
            run.folder.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{run.folder / DATABASE}"
            artifacts = (run.folder / "artifacts").as_uri()
        self._client = MlflowClient(tracking_uri=uri)
        self._id = self._opened(experiment, artifacts)
        self._status = "KILLED"

    def on_trial(self, trial: TrialEnded) -> None:
        """Log its numbers at the step of its number."""
        self._log(trial.scalars, trial.number)

    def on_stage(self, stage: StageEnded) -> None:
        """Log its rows' scores."""
        self._log(stage.scalars)

    def on_end(self, result: Result) -> None:
        """Log the winner's scores and the leaderboard."""
        self._log(self.of_winner(result))
        for name in ("leaderboard.md", "leaderboard.json"):
            if (result.folder / name).exists():
                self._client.log_artifact(self._id, str(result.folder / name))
        self._status = "FINISHED"

    def close(self) -> None:
        """End the run."""
        self._client.set_terminated(self._id, self._status)

    def _opened(self, name: str, artifacts: str | None) -> str:
        """Return the id of the campaign's run, an earlier one where it is resumed."""
        from mlflow.entities import Param

        client = self._client
        experiment = client.get_experiment_by_name(name)
        number = (
            client.create_experiment(name, artifact_location=artifacts)
            if experiment is None
            else experiment.experiment_id
        )
        found = client.search_runs([number], f"tags.`{TAG}` = '{self.run.id}'")
        if found:
            client.update_run(found[0].info.run_id, status="RUNNING")
            return str(found[0].info.run_id)
        run = client.create_run(number, tags={TAG: self.run.id}, run_name=self.run.name)
        texts = flat(self.run.settings).items()
        params = [Param(_plain(key), value[:LONGEST]) for key, value in texts]
        for start in range(0, len(params), AT_ONCE):
            client.log_batch(run.info.run_id, params=params[start : start + AT_ONCE])
        return str(run.info.run_id)

    def _log(self, scalars: Mapping[str, float], step: int = 0) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(_plain(name), value, now, step) for name, value in scalars.items()]
        for start in range(0, len(metrics), AT_ONCE):
            self._client.log_batch(self._id, metrics=metrics[start : start + AT_ONCE])


def _plain(name: str) -> str:
    """Return a name with the characters that MLflow takes; two slashes in a row would be a path."""
    return re.sub(r"[^\w. :/-]", "_", name)
