"""The family: base and experts."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from evomerge.config.model_names import with_name
from evomerge.config.settings import DType, NonEmpty, Settings
from evomerge.config.validation import FieldError
from evomerge.errors import nearest


class Expert(Settings):
    """A model fine-tuned from the base.

    Attributes:
        model: A local folder (full checkpoint or PEFT adapter), a Hub id, or `zoo:NAME`.
        name: What reports call it; by default the last part of `model`.
    """

    model: NonEmpty
    name: NonEmpty


class GivenExpert(Settings):
    """A model fine-tuned from the base, as a file may give it.

    Attributes:
        model: A local folder (full checkpoint or PEFT adapter), a Hub id, or `zoo:NAME`.
        name: What reports call it; by default the last part of `model`.
    """

    model: NonEmpty
    name: NonEmpty | None = None


_Named = Annotated[
    Expert, BeforeValidator(with_name, json_schema_input_type=NonEmpty | GivenExpert)
]


class Models(Settings):
    """The family.

    Attributes:
        base: The common ancestor: a local folder, a Hub id, or `zoo:NAME`.
        experts: One or more models fine-tuned from it; a bare text, or `{model, name}`.
        dtype: Of the merged weights and of the forward passes.
        tokenizer: Whose tokens the merged models have, where experts added some: `base`, `union`, or an
            expert's name; rows are then matched by token. Without it, unlike vocabularies are refused.
        trust_remote_code: Let models and tasks run code of their own.
        allow_pickle: Accept PyTorch pickles where there is no safetensors file.
    """

    base: NonEmpty
    experts: tuple[_Named, ...] = Field(min_length=1)
    dtype: DType = "bfloat16"
    tokenizer: NonEmpty | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False

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
        names = [str(expert.name) for expert in self.experts]
        if self.tokenizer in (None, "base", "union") and self.tokenizer not in names:
            return self
        if self.tokenizer == "union":
            message = 'an expert is called "union", too; give it another name'
            raise FieldError(message, "tokenizer")
        if self.tokenizer not in names:
            known = ("base", "union", *names)
            message = f'found "{self.tokenizer}"; {nearest(str(self.tokenizer), known)}'
            raise FieldError(message, "tokenizer")
        return self
