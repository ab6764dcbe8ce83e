"""Who evaluates, and what runs the models on the items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from evomerge.config.faults import FieldError
from evomerge.config.settings import Count, NonEmpty, Settings


class Workers(Settings):
    """Who evaluates."""

    count: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Number of Ray workers; `auto`: what the machine's cores or GPUs hold; 0: in this process."""
    cpus: float = Field(default=1, gt=0)
    """Cores of one worker, its threads too."""
    gpus: float = Field(default=0, ge=0)
    """GPUs of one worker: a fraction of one, which others share, or as many as its models need."""
    batch_tokens: Count | Literal["auto"] = "auto"
    """Tokens of one forward pass; `auto`: sized from the machine."""
    retries: int = Field(default=2, ge=0)
    """How often a candidate whose worker died is given to another one."""

    @field_validator("gpus")
    @classmethod
    def _whole_above_one(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(
                f"found {gpus:g}, expected a fraction of one GPU, such as 0.5, or a whole number of them"
            )
        return gpus


class ScorerSettings(Settings):
    """What runs the models on the items."""

    backend: NonEmpty = "resident"
    """`resident`: passes over the live weights; `vllm`: the same, and vLLM writes the texts; or one of
    lm-eval's model types (`hf`, `sglang`, …), which loads each candidate from a folder in memory."""
    args: Mapping[str, Any] = Field(default_factory=dict)
    """Engine arguments of vLLM, or arguments of such a model type."""
    quantise: Literal["nf4", "fp4", "int8"] | None = None
    """Score with the merged weights of linear layers quantised by bitsandbytes; what is saved is not."""
    allow_unsafe_code: bool = False
    """Let tasks run code that a model writes."""

    @model_validator(mode="after")
    def _args_have_a_taker(self) -> Self:
        if self.args and self.backend == "resident":
            message = "args are for vLLM and lm-eval's model types; give backend too, such as hf"
            raise FieldError(message, "args")
        if self.quantise is not None and self.backend != "resident":
            message = (
                f"is of the resident scorer; leave it out, or give {self.backend} an argument of its own, "
                "such as args: {quantization: fp8} of vllm"
            )
            raise FieldError(message, "quantise")
        return self

    @property
    def at_once(self) -> int:
        """How many candidates a worker may take at once: as many adapters as vLLM's engine holds."""
        return int(self.args.get("max_loras", 1)) if self.backend == "vllm" else 1

    @property
    def quantised_to(self) -> str:
        """What the weights are quantised to while candidates are scored; empty: nothing."""
        return self.quantise or str(self.args.get("quantization") or "")
