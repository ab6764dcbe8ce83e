"""Loggers by name: a class in a file of its own, and a line here or an entry point elsewhere.

They import their libraries when they are opened.
"""

from importlib.metadata import entry_points

from evomerge.loggers.broadcast import SECONDS_TO_END, Broadcast
from evomerge.loggers.callback import (
    Callback,
    LoggedRun,
    Logger,
    RowScored,
    StageEnded,
    TrialEnded,
)
from evomerge.loggers.mlflow import MlflowLogger
from evomerge.loggers.options import check_logger
from evomerge.loggers.tensorboard import TensorboardLogger
from evomerge.loggers.trackio import TrackioLogger
from evomerge.loggers.wandb import WandbLogger

LOGGERS: dict[str, type[Logger]] = {
    "wandb": WandbLogger,
    "mlflow": MlflowLogger,
    "tensorboard": TensorboardLogger,
    "trackio": TrackioLogger,
}
"""Name in a campaign file → class, called with a `LoggedRun` and the options of the file."""
LOGGERS |= {point.name: point.load() for point in entry_points(group="evomerge.loggers")}

__all__ = [
    "LOGGERS",
    "SECONDS_TO_END",
    "Broadcast",
    "Callback",
    "LoggedRun",
    "Logger",
    "RowScored",
    "StageEnded",
    "TrialEnded",
    "check_logger",
]
