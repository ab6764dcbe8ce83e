"""What a campaign file says of a logger, checked before anything is opened: name, options, package."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from evomerge.errors import CampaignError, nearest
from evomerge.loggers.callback import Logger


def check_logger(
    name: str,
    options: Mapping[str, Any],
    known: Mapping[str, type[Logger]],
    field: str,
    *,
    folder: str | None = None,
) -> None:
    """Refuse a logger that cannot be opened.

    Args:
        name: Of the logger.
        options: Its options, apart from its folder.
        known: Name → class.
        field: Of the campaign file, for the message.
        folder: Where it is to write; None: nothing is said.

    Raises:
        CampaignError: An unknown name or option, a value of another type, or a package that is missing.
    """
    if name not in known:
        raise CampaignError(f'unknown logger "{name}"; {nearest(name, known)}', field=field)
    kind = known[name]
    parameters = inspect.signature(kind).parameters.values()
    taken = {one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}
    hints = get_type_hints(kind.__init__)
    for option, value in options.items():
        if option not in taken:
            hint = nearest(option, {*taken, "folder"})
            message = f'{name} has no option "{option}"; {hint}'
            raise CampaignError(message, field=f"{field}.{option}")
        try:
            TypeAdapter(hints.get(option, Any)).validate_python(value)
        except ValidationError as error:
            expected = error.errors()[0]["msg"].removeprefix("Input should be ")
            shown = json.dumps(value, ensure_ascii=False, default=str)
            message = f"found {shown}, expected {expected}"
            raise CampaignError(message, field=f"{field}.{option}") from None
    if folder is not None and kind.own_place:
        message = f"{name} writes all runs to one place; set {kind.own_place} instead"
        raise CampaignError(message, field=f"{field}.folder")
    if kind.package and not _is_installed(kind.package):
        message = f"needs the package {kind.package}; install it with: pip install {kind.install}"
        raise CampaignError(message, field=field)


def _is_installed(package: str) -> bool:
    """Tell whether a package can be imported; a folder of its name, such as `./wandb`, is none."""
    found = find_spec(package)
    return found is not None and found.origin is not None
