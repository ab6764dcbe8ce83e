"""The family: base and experts."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from evomerge.config.faults import FieldError
from evomerge.config.model_names import short_name
from evomerge.config.settings import DType, FilledIn, ModelName, NonEmpty, Settings, with_default
from evomerge.errors import nearest


class Expert(Settings):
    """A model fine-tuned from the base."""

    model: ModelName
    """A local folder (full checkpoint or PEFT adapter), a Hub id, or `zoo:NAME`."""
    name: FilledIn = ""
    """What reports call it; by default the last part of `model`."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:  # noqa: ANN401 - not yet validated
        model = data.get("model") if isinstance(data, dict) else None
        return with_default(data, "name", short_name(model)) if isinstance(model, str) else data


def _as_mapping(expert: object) -> object:
    return {"model": expert} if isinstance(expert, str) else expert


class Models(Settings):
    """The family."""

    base: ModelName
    """The common ancestor: a local folder, a Hub id, or `zoo:NAME`."""
    experts: tuple[
        Annotated[Expert, BeforeValidator(_as_mapping, json_schema_input_type=NonEmpty | Expert)],
        ...,
    ] = Field(min_length=1)
    """One or more models fine-tuned from it; a bare text, or `{model, name}`."""
    dtype: DType = "bfloat16"
    """Of the merged weights and of the forward passes."""
    tokenizer: NonEmpty | None = None
    """Whose tokens the merged models have, where experts added some: `base`, `union`, or an expert's
    name; rows are then matched by token. Without it, unlike vocabularies are refused."""
    trust_remote_code: bool = False
    """Let models and tasks run code of their own."""
    allow_pickle: bool = False
    """Accept PyTorch pickles where there is no safetensors file."""

    @field_validator("experts")
    @classmethod
    def _unique(cls, experts: tuple[Expert, ...]) -> tuple[Expert, ...]:
        names = [unicodedata.normalize("NFC", expert.name) for expert in experts]
        for place, name in enumerate(names):
            if name in names[:place]:
                message = f'two experts are called "{name}"'
            elif name == "base":
                message = 'no expert may be called "base"'
            else:
                continue
            raise FieldError(f"{message}; give it as {{model: ..., name: ...}}", place, "name")
        return experts

    @model_validator(mode="after")
    def _known_tokenizer(self) -> Self:
        names = [expert.name for expert in self.experts]
        if self.tokenizer == "union" and "union" in names:
            message = 'an expert is called "union", too; give it another name'
            raise FieldError(message, "tokenizer")
        known = ("base", "union", *names)
        if self.tokenizer is not None and self.tokenizer not in known:
            raise FieldError(
                f'found "{self.tokenizer}"; {nearest(self.tokenizer, known)}', "tokenizer"
            )
        return self
