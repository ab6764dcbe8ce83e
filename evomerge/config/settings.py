"""What every settings type is: frozen, finite, documented, and without unknown fields."""

from __future__ import annotations

import inspect
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

DType = Literal["float32", "bfloat16", "float16"]
NonEmpty = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]


def _may_be_left_out(schema: dict[str, Any]) -> None:
    schema.pop("default", None)
    schema["type"] = ["string", "null"]


Filled = Annotated[str, Field(min_length=1, json_schema_extra=_may_be_left_out)]
"""A text for which a validator puts another field's value where it is left out."""


class Settings(BaseModel):
    """Frozen; refuses unknown fields, NaN and infinity."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Describe the type and its fields in the schema by its docstring."""
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        summary, fields = documented(cls)
        schema["description"] = summary
        for name, field in cls.model_fields.items():
            described = schema["properties"][field.alias or name]
            described.pop("title", None)  # the name once more
            if name in fields:
                described["description"] = fields[name]
        return reference


def documented(settings: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """Return what the docstring says of a type: the text before `Attributes:`, and of each field."""
    text, _, attributes = inspect.cleandoc(settings.__doc__ or "").partition("Attributes:\n")
    entries = re.split(r"^    (?=\w+:)", attributes, flags=re.MULTILINE)
    pairs = (entry.partition(":") for entry in entries if entry.strip())
    return _one_line(text), {name: _one_line(rest) for name, _, rest in pairs}


def _one_line(text: str) -> str:
    return " ".join(text.split())
