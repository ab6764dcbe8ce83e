"""TensorBoard: event files in a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from evomerge.loggers.callback import LoggedRun, Logger, StageEnded, TrialEnded

if TYPE_CHECKING:
    from evomerge.result import Result


class TensorboardLogger(Logger):
    """Scalars by trial; of stages and the winner a value each; the leaderboard as text."""

    package: ClassVar[str] = "tensorboard"
    install: ClassVar[str] = "'evomerge[tensorboard]'"

    def __init__(self, run: LoggedRun) -> None:
        super().__init__(run)
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.folder))

    def on_trial(self, trial: TrialEnded) -> None:
        """Write its numbers at the step of its number."""
        for name, value in trial.scalars.items():
            self._writer.add_scalar(name, value, trial.number)
        self._writer.flush()

    def on_stage(self, stage: StageEnded) -> None:
        """Write its rows' scores."""
        for name, value in stage.scalars.items():
            self._writer.add_scalar(name, value)

    def on_end(self, result: Result) -> None:
        """Write the winner's scores and the leaderboard."""
        for name, value in self.of_winner(result).items():
            self._writer.add_scalar(name, value)
        board = result.folder / "leaderboard.md"
        if board.exists():
            self._writer.add_text("leaderboard", board.read_text(encoding="utf-8"))

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
