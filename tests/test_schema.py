from evomerge.schema import json_schema


def test_the_schema_names_every_field_of_the_file():
    schema = json_schema()
    assert {"models", "space", "objectives", "items", "search", "workers", "scorer"} <= set(
        schema["properties"]
    )
    assert "from" in schema["$defs"]["Items"]["properties"]
    assert schema["additionalProperties"] is False
