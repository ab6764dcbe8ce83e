"""Weights & Biases: a run, offline unless the user asks for more."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from evomerge.loggers.callback import LoggedRun, Logger, StageEnded, TrialEnded

if TYPE_CHECKING:
    from evomerge.result import Result

Mode = Literal["online", "offline", "disabled"]


class WandbLogger(Logger):
    """Charts by trial; scores of stages and of the winner, and the leaderboard, in the run's summary.

    Args:
        run: The campaign.
        project: Of W&B.
        entity: User or team; None: the user's default.
        group: Of runs.
        mode: None: as `WANDB_MODE` says, else offline; `wandb sync` uploads an offline run.
    """

    package: ClassVar[str] = "wandb"
    install: ClassVar[str] = "'evomerge[wandb]'"

    def __init__(
        self,
        run: LoggedRun,
        *,
        project: str = "evomerge",
        entity: str | None = None,
        group: str | None = None,
        mode: Mode | None = None,
    ) -> None:
        super().__init__(run)
        mode = mode or os.environ.get("WANDB_MODE") or "offline"  # type: ignore[assignment]
        if mode != "online":
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its crash reports
        import wandb

        run.folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=project,
            entity=entity,
            group=group,
            name=run.name,
            id=run.id,
            resume="allow",
            reinit="create_new",
            dir=os.environ.get("WANDB_DIR") or run.folder,
            mode=mode,
            config=dict(run.settings),
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("trial", hidden=True)
        self._run.define_metric("*", step_metric="trial")
        self._exit_code = 1

    def on_trial(self, trial: TrialEnded) -> None:
        """Log its numbers."""
        self._run.log({"trial": trial.number, **trial.scalars})

    def on_stage(self, stage: StageEnded) -> None:
        """Put its rows' scores into the summary."""
        self._run.summary.update(stage.scalars)

    def on_end(self, result: Result) -> None:
        """Put the winner's scores into the summary, and keep the leaderboard's files."""
        self._run.summary.update(self.of_winner(result))
        for name in ("leaderboard.md", "leaderboard.json"):
            if (result.folder / name).exists():
                shutil.copyfile(result.folder / name, Path(self._run.dir) / name)
        self._exit_code = 0

    def close(self) -> None:
        """End the run; one that was stopped counts as failed."""
        self._run.finish(exit_code=self._exit_code)
