"""Who evaluates, and what runs the models on the items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from evomerge.config.settings import Count, NonEmpty, Settings
from evomerge.config.validation import FieldError


class Workers(Settings):
    """Who evaluates.

    Attributes:
        count: Number of Ray workers; `auto`: what the machine's cores or GPUs hold; 0: in this process.
        cpus: Cores of one worker, its threads too.
        gpus: GPUs of one worker, fractions too.
        batch_tokens: Tokens of one forward pass; `auto`: sized from the machine.
        retries: How often a candidate whose worker died is given to another one.
    """

    count: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    cpus: float = Field(default=1, gt=0)
    gpus: float = Field(default=0, ge=0)
    batch_tokens: Count | Literal["auto"] = "auto"
    retries: int = Field(default=2, ge=0)


class Scorer(Settings):
    """What runs the models on the items.

    Attributes:
        backend: `resident`: passes over the live weights; or one of lm-eval's model types (`hf`, `vllm`,
            …), which loads each candidate from a folder in memory.
        args: Arguments of such a model type.
        allow_unsafe_code: Let tasks run code that a model writes.
    """

    backend: NonEmpty = "resident"
    args: Mapping[str, Any] = Field(default_factory=dict)
    allow_unsafe_code: bool = False

    @model_validator(mode="after")
    def _args_have_a_taker(self) -> Self:
        if self.args and self.backend == "resident":
            message = "args are for lm-eval's model types; give backend too, such as hf"
            raise FieldError(message, "args")
        return self
