"""trackio: a run in its local database, which `trackio show` charts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, ClassVar

from evomerge.loggers.callback import LoggedRun, Logger, StageEnded, TrialEnded

if TYPE_CHECKING:
    from evomerge.result import Result


class TrackioLogger(Logger):
    """Charts by trial; behind them a step for each stage, and one for the winner.

    Args:
        run: The campaign.
        project: Of trackio.
        space_id: A Space on the Hub that is written to; None: `TRACKIO_SPACE_ID`, else nothing leaves here.
    """

    package: ClassVar[str] = "trackio"
    install: ClassVar[str] = "'evomerge[trackio]'"
    own_place: ClassVar[str] = "TRACKIO_DIR"

    def __init__(
        self, run: LoggedRun, *, project: str = "evomerge", space_id: str | None = None
    ) -> None:
        super().__init__(run)
        import trackio

        remote = (
            space_id or os.environ.get("TRACKIO_SPACE_ID") or os.environ.get("TRACKIO_SERVER_URL")
        )
        with _quiet(local=not remote):
            self._run = trackio.init(
                project=project,
                name=f"{run.name} {run.id[:8]}",  # which is how it is found again
                space_id=space_id,
                config=dict(run.settings),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        self._steps = 0

    def on_trial(self, trial: TrialEnded) -> None:
        """Log its numbers at the step of its number."""
        self._steps = trial.number + 1
        self._run.log(trial.scalars, step=trial.number)

    def on_stage(self, stage: StageEnded) -> None:
        """Log its rows' scores."""
        self._log(stage.scalars)

    def on_end(self, result: Result) -> None:
        """Log the winner's scores."""
        self._log(self.of_winner(result))

    def close(self) -> None:
        """Write what is left."""
        with _quiet(local=False):
            self._run.finish()

    def _log(self, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=self._steps)


@contextmanager
def _quiet(*, local: bool) -> Iterator[None]:
    """Keep trackio's words off stdout; a local run does not ask the Hub who is logged in."""
    with redirect_stdout(StringIO()):
        if not local:
            yield
            return
        from trackio.run import Run

        asks, Run._get_username = Run._get_username, lambda _: None
        try:
            yield
        finally:
            Run._get_username = asks
