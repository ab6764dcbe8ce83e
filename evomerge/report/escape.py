"""Text from outside (names of models, tasks, campaigns; reasons of failures), made safe to show."""

from __future__ import annotations

import re
import unicodedata

_MARKDOWN = re.compile(r"([\\`*\[\]|])")
_FORMULA = ("=", "+", "-", "@")


def plain(text: str) -> str:
    """Put text on one line and drop what could steer a terminal."""
    spaced = re.sub(r"\s+", " ", text).strip()
    return "".join(char for char in spaced if unicodedata.category(char) not in ("Cc", "Cf"))


def markdown_cell(text: str) -> str:
    """Escape text for a cell or a line of Markdown: no markup, no HTML, no link, no image."""
    escaped = _MARKDOWN.sub(r"\\\1", plain(text))
    escaped = re.sub(r"&(?=[#\w])", "&amp;", escaped)
    escaped = re.sub(r"<(?! )", "&lt;", escaped)  # "p < 0.01" stays: no tag begins with a space
    return re.sub(r"^(?=[>#+-])", r"\\", escaped)


def spreadsheet_cell(text: str) -> str:
    """Keep a spreadsheet from taking text for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def fenced(text: str, language: str = "") -> str:
    """Put text in a Markdown code block that nothing in it can close."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
