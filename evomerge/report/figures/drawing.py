"""What all figures share: colours, axes, buttons, and text and numbers as plotly takes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from evomerge.report.grid import plain

Drawing = dict[str, Any]
"""A plotly figure as plain JSON: `data`, a list of traces, and `layout`."""

INK = "#767676"
"""Of text: it can be read on white and on black."""
FAINT = "rgba(128, 128, 128, 0.25)"
CLEAR = "rgba(0, 0, 0, 0)"
# Of the colours of M. Okabe and K. Ito (2008), for the colour-blind, those that show on white and on black.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY = (
    *("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"),
)
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)
OF_KIND = {"winner": RED, "finalist": SKY, "baseline": ORANGE, "expert": BLUE, "base": INK}
SIGN_OF_KIND = {
    "winner": "diamond",
    "finalist": "triangle-up",
    "baseline": "square",
    "expert": "circle",
    "base": "x",
}
# From B. Brewer's scales PuOr and Blues, which the colour-blind can read: white is 0.
AROUND_ZERO = [
    [0, "#b35806"],
    [0.25, "#fdb863"],
    [0.5, "#f7f7f7"],
    [0.75, "#92c5de"],
    [1, "#053061"],
]
FROM_ZERO = [[0, "#f7f7f7"], [0.5, "#92c5de"], [1, "#053061"]]
_MOST_BUTTONS = 4
LONGEST = 18
"""Letters of a label on an axis; hovering shows it whole."""


def text(of: str) -> str:
    """Escape text from outside: plotly reads a few HTML tags and entities."""
    return plain(of).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def short(of: str, longest: int = LONGEST) -> str:
    """Return text as a label, cut where it is long."""
    of = plain(of)
    return text(of if len(of) <= longest else f"{of[: longest - 1]}…")


def shorts(of: Sequence[str], longest: int = LONGEST) -> list[str]:
    """Return texts as labels, no two unlike texts alike: those that begin alike show how they end.

    On an axis of categories plotly draws what has one label at one place.
    """
    begin = {one: short(one, longest) for one in of}
    count = Counter(begin.values())
    end = {
        one: label if count[label] == 1 else text(f"…{plain(one)[1 - longest :]}")
        for one, label in begin.items()
    }
    count = Counter(end.values())
    labels = {
        one: label if count[label] == 1 else f"{number} {label}"
        for number, (one, label) in enumerate(end.items(), 1)
    }
    return [labels[one] for one in of]


def number(value: float | None, digits: int = 4) -> float | None:
    """Round a number so that it is short in a page."""
    return None if value is None else round(float(value), digits)


def numbers(values: Iterable[float | None], digits: int = 4) -> list[float | None]:
    """Round numbers."""
    return [number(value, digits) for value in values]


def drawing(
    data: Sequence[Drawing], *, height: int, xaxis: Drawing, yaxis: Drawing, **layout: object
) -> Drawing:
    """Return a figure: transparent, with a legend above that wraps, and margins that fit the labels."""
    return {
        "data": list(data),
        "layout": {
            "height": height,
            "paper_bgcolor": CLEAR,
            "plot_bgcolor": CLEAR,
            "font": {"color": INK, "size": 12},
            "margin": {"l": 8, "r": 8, "t": 8, "b": 8, "pad": 2},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "hovermode": "closest",
            "xaxis": xaxis,
            "yaxis": yaxis,
            **layout,
        },
    }


def axis(title: str = "", **more: object) -> Drawing:
    """Return an axis with faint lines."""
    found: Drawing = {
        "automargin": True,
        "gridcolor": FAINT,
        "zerolinecolor": FAINT,
        "linecolor": FAINT,
        **more,
    }
    return found | ({"title": {"text": title, "standoff": 8}} if title else {})


def choice(labels: Sequence[str], arguments: Sequence[list[Drawing]]) -> list[Drawing]:
    """Return `layout.updatemenus`: a list of choices, each with the arguments of plotly's `update`.

    Few are buttons, more a list to choose from. A page may show other controls in their place, as each entry
    says what to pass to `Plotly.update`.
    """
    buttons = [
        {"label": label, "method": "update", "args": args}
        for label, args in zip(labels, arguments, strict=True)
    ]
    menu = {
        "buttons": buttons,
        "type": "buttons" if len(buttons) <= _MOST_BUTTONS else "dropdown",
        "direction": "right" if len(buttons) <= _MOST_BUTTONS else "up",
        "showactive": True,
        "x": 1,
        "xanchor": "right",
        "y": 0,
        "yanchor": "top",
        "pad": {"t": 48},
        "bgcolor": CLEAR,
        "bordercolor": FAINT,
        "font": {"color": INK},
    }
    return [menu]
