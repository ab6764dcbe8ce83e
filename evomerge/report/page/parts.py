"""What a page is made of: sections of paragraphs, lists, tables, figures, code and items, as plain values.

Every text in them is as it came; the template escapes it, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from evomerge.report.grid import Grid

Tone = Literal["good", "plain", "bad"]
"""How news is."""


@dataclass(frozen=True)
class Callout:
    """A sentence that stands out."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Listing:
    """Sentences of equal rank, each with a bullet."""

    texts: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Text to be read or copied as it is, such as a recipe; `title` says what it is."""

    title: str
    text: str


@dataclass(frozen=True)
class Plot:
    """A figure.

    Attributes:
        name: One word, unlike those of the page's other figures.
        title: Above it.
        description: What it shows, a sentence or two, also for those who cannot see it.
        figure: Plotly's `data` and `layout` as JSON values.
    """

    name: str
    title: str
    description: str
    figure: Mapping[str, Any]


@dataclass(frozen=True)
class ItemTable:
    """What models wrote, item by item, with filters; one a page. `data` is `Items.to_json`'s."""

    data: Mapping[str, Any]


@dataclass(frozen=True)
class Fold:
    """Parts that show only after a click on the summary."""

    summary: str
    parts: Sequence[Part]


Part = str | Callout | Listing | Grid | Code | Plot | ItemTable | Fold
"""A text alone is a paragraph."""


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading.

    Attributes:
        key: Its anchor, a word in lower case.
        title: Its heading, also in the page's contents.
        parts: Below the heading.
    """

    key: str
    title: str
    parts: Sequence[Part]
