"""The JSON schema of the campaign file, for editors."""

from __future__ import annotations

from typing import Any

from evomerge.campaign import Campaign


def json_schema() -> dict[str, Any]:
    """Return the schema, in the dialect of 2020-12."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return dialect | Campaign.model_json_schema(by_alias=True)
