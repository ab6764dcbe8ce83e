"""What every settings type is: frozen, finite, described field by field, and without unknown fields."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo

from evomerge.config.model_names import anchored


class Settings(BaseModel):
    """Frozen; refuses unknown fields, NaN and infinity. The text below a field describes it."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


def _may_be_left_out(schema: dict[str, Any]) -> None:
    schema.pop("default", None)
    schema["type"] = ["string", "null"]


def from_folder(path: str, info: ValidationInfo) -> str:
    """Make a path absolute, from the folder of the file that is read."""
    return (
        str((info.context["folder"] / Path(path).expanduser()).resolve()) if info.context else path
    )


def _model(model: str, info: ValidationInfo) -> str:
    return anchored(model, info.context["folder"]) if info.context else model


DType = Literal["float32", "bfloat16", "float16"]
ITEMSIZES: Mapping[DType, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a weight."""
NonEmpty = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
FilledIn = Annotated[str, Field(min_length=1, json_schema_extra=_may_be_left_out)]
"""A text for which a validator puts another field's value where it is left out."""
LocalPath = Annotated[NonEmpty, AfterValidator(from_folder)]
"""A path, absolute once its file is read: relative ones are taken from the file's folder."""
ModelName = Annotated[NonEmpty, AfterValidator(_model)]
"""A local folder (absolute once its file is read), a Hub id, or `zoo:NAME`."""


def with_default(data: Any, field: str, value: object) -> Any:  # noqa: ANN401 - not yet validated
    """Fill in a field that is left out or null."""
    if isinstance(data, dict) and data.get(field) is None:
        return {**data, field: value}
    return data
