"""Sections → one HTML file that holds all it needs: styles, scripts, plotly.js, figures and items.

Nothing is loaded: a content security policy forbids it, and lets no script run but the two that are ours,
named by their hashes. Texts stand in the page escaped, or inside a packed block that the script reads as
JSON and shows as text.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from itertools import count
from typing import TYPE_CHECKING, Any

from evomerge.report.grid import Grid
from evomerge.report.page.parts import (
    Callout,
    Code,
    Fold,
    ItemTable,
    Listing,
    Part,
    Plot,
    Section,
)

if TYPE_CHECKING:
    from jinja2 import Environment

LARGEST = 2_000_000
"""Bytes that a page may have."""
REFRESH_SECONDS = 10
_BUNDLE = "plotly-cartesian.min.js.gz"
_KINDS = {
    str: "paragraph",
    Callout: "callout",
    Listing: "listing",
    Grid: "grid",
    Code: "code",
    Plot: "plot",
    ItemTable: "items",
    Fold: "fold",
}


def write_page(
    title: str, sections: Sequence[Section], *, subtitle: str = "", refresh: bool = False
) -> str:
    """Write a page.

    Args:
        title: Its heading, and the window's.
        sections: In their order; those without parts are left out.
        subtitle: A line below the heading.
        refresh: It loads itself again every `REFRESH_SECONDS`, as long as the reader lets it.

    Returns:
        HTML, the same for the same arguments.
    """
    from markupsafe import Markup

    shown = [section for section in sections if section.parts]
    parts = [part for section in shown for part in _all(section.parts)]
    plots = {part.name: part.figure for part in parts if isinstance(part, Plot)}
    items = next((part.data for part in parts if isinstance(part, ItemTable)), None)
    script = _asset("templates/page.js").decode()
    bundle = _asset(f"plotly/{_BUNDLE}") if plots else b""
    scripts = [script.encode(), *([gzip.decompress(bundle)] if plots else [])]
    return (
        _environment()
        .get_template("page.html.jinja")
        .render(
            title=title,
            subtitle=subtitle,
            sections=shown,
            hashes=[_hash(each) for each in scripts],
            style=Markup(_asset("templates/page.css").decode()),
            script=Markup(script),
            bundle=Markup(base64.b64encode(bundle).decode()),
            payload=Markup(packed({"plots": plots, "items": items}) if plots or items else ""),
            number=count().__next__,
            refresh=REFRESH_SECONDS if refresh else 0,
        )
    )


def packed(data: Mapping[str, Any]) -> str:
    """Return JSON values as they stand in a page: compressed, in letters that no markup is made of."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def clean(text: str) -> str:
    """Drop the characters that HTML cannot hold or that steer the direction of text; lines stay."""
    whole = text.encode("utf-8", "replace").decode()
    kept = ("\n", "\t")
    return "".join(
        char for char in whole if char in kept or unicodedata.category(char) not in ("Cc", "Cf")
    )


def _all(parts: Sequence[Part]) -> Iterator[Part]:
    for part in parts:
        yield part
        if isinstance(part, Fold):
            yield from _all(part.parts)


def _hash(script: bytes) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}"


@cache
def _asset(name: str) -> bytes:
    return files("evomerge.report.page").joinpath(name).read_bytes()


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("evomerge.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: clean(value) if type(value) is str else value,
    )
    environment.filters["kind"] = lambda part: _KINDS[type(part)]
    return environment
