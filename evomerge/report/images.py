"""Figures for notebooks and papers: objects of the Python package plotly, and PNG, SVG and PDF files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evomerge.errors import ResultsError, UserError, nearest
from evomerge.report.browser import image
from evomerge.report.figures import FIGURES
from evomerge.report.figures.drawing import Drawing
from evomerge.report.material import Material

ENDINGS = (".png", ".svg", ".pdf")
WIDTH = 800
"""Pixels; of a PNG twice as many."""
_EXTRA = "install it with: pip install 'evomerge[plots]'"


def plotly_figure(material: Material, name: str) -> Any:  # noqa: ANN401 - plotly need not be installed
    """Return a figure as a `plotly.graph_objects.Figure`.

    Args:
        material: Of the study.
        name: A key of `FIGURES`.

    Raises:
        UserError: An unknown name, or plotly is not installed.
        ResultsError: The study has no such figure.
    """
    drawn = _drawn(material, name)
    try:
        import plotly.graph_objects
    except ImportError:
        raise UserError(f"figures need plotly; {_EXTRA}") from None
    return plotly.graph_objects.Figure(drawn)


def write_image(material: Material, path: Path, name: str) -> None:
    """Write a figure as an image, black on white, without its buttons.

    Args:
        material: Of the study.
        path: Ends in one of `ENDINGS`.
        name: A key of `FIGURES`.

    Raises:
        UserError: Another ending, an unknown name, or plotly, kaleido or a browser is missing.
        ResultsError: The study has no such figure.
        EvomergeError: The browser fails.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UserError(
            f'found "{path.name}", expected a name that ends in {", ".join(ENDINGS[:-1])} or '
            f"{ENDINGS[-1]}",
            field="--image",
        )
    drawn = _drawn(material, name)
    drawn["layout"] |= {
        "updatemenus": [],
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "font": {"color": "black"},
        "height": drawn["layout"]["height"] + 40,  # the title's
    }
    path.write_bytes(_image(drawn, path.suffix.lower().removeprefix(".")))


def _drawn(material: Material, name: str) -> Drawing:
    if name not in FIGURES:
        raise UserError(f'unknown figure "{name}"; {nearest(name, FIGURES)}', field="--figure")
    drawn = FIGURES[name].build(material)
    if drawn is None:
        others = [other for other, one in FIGURES.items() if one.build(material) is not None]
        has = f"it has {', '.join(others)}" if others else "it has none yet"
        raise ResultsError(
            f'the study has no figure "{name}"; {has}', file=material.folder, field="--figure"
        )
    drawn["layout"] |= {
        "title": {"text": FIGURES[name].title, "automargin": True, "yref": "container"}
    }
    return drawn


def _image(drawn: Drawing, ending: str) -> bytes:
    try:
        import kaleido  # noqa: F401
        import plotly  # noqa: F401 - kaleido takes its JavaScript from there, else from the network
    except ImportError as error:
        raise UserError(f"images need {error.name}; {_EXTRA}", field="--image") from None
    layout, scale = drawn["layout"], 2 if ending == "png" else 1
    opts = {"format": ending, "width": WIDTH, "height": layout["height"], "scale": scale}
    return image(drawn, opts)
