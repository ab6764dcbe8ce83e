"""Where in a campaign file an error is, when it is found after the file was read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evomerge import yaml_file
from evomerge.errors import CampaignError, UserError


@contextmanager
def located(file: Path | None) -> Iterator[None]:
    """Let an error that names a field of a campaign name its file and line, too; None: leave it so."""
    try:
        yield
    except UserError as error:
        if error.field is None or file is None:
            raise
        document = yaml_file.read(file, CampaignError)
        parts = [int(part) if part.isdigit() else part for part in error.field.split(".")]
        line = "" if error.line is None else f":{error.line}"
        place = "" if error.file is None else f"{error.file}{line}: "
        raise document.error(type(error), parts, place + error.message) from error
