"""Who else is told of a campaign while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict

from evomerge.config.settings import LocalPath, NonEmpty, Settings


class LoggerSettings(Settings):
    """A logger, with options of its own beside these."""

    model_config = ConfigDict(extra="allow")

    name: NonEmpty
    """`wandb`, `mlflow`, `tensorboard`, `trackio`, or one that another package brings."""
    folder: LocalPath | None = None
    """Where it writes; by default `loggers/NAME` in the results folder."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Its options, which `evomerge.loggers` checks."""
        return self.model_extra or {}


def _as_mapping(logger: object) -> object:
    return {"name": logger} if isinstance(logger, str) else logger


Loggers = tuple[
    Annotated[
        LoggerSettings,
        BeforeValidator(_as_mapping, json_schema_input_type=NonEmpty | LoggerSettings),
    ],
    ...,
]
"""A bare text, or `{name, options}`; none by default."""
