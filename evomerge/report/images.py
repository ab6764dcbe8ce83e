"""Figures for notebooks and papers: objects of the Python package plotly, and PNG, SVG and PDF files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evomerge.errors import ResultsError, UserError, nearest
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
    drawn["layout"] |= {"title": {"text": FIGURES[name].title, "automargin": True}}
    return _graph_objects().Figure(drawn)


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
    figure = plotly_figure(material, name)
    figure.update_layout(
        updatemenus=[], paper_bgcolor="white", plot_bgcolor="white", font={"color": "black"}
    )
    height = figure.layout.height + 40  # the title's
    path.write_bytes(_image(figure, path.suffix.lower().removeprefix("."), height))


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
    return drawn


def _graph_objects() -> Any:  # noqa: ANN401 - plotly need not be installed
    try:
        import plotly.graph_objects
    except ImportError:
        raise UserError(f"figures need plotly; {_EXTRA}") from None
    return plotly.graph_objects


def _image(figure: Any, ending: str, height: int) -> bytes:  # noqa: ANN401 - of plotly
    try:
        import kaleido  # noqa: F401 - plotly needs it
    except ImportError:
        raise UserError(f"images need kaleido; {_EXTRA}") from None
    scale = 2 if ending == "png" else 1
    try:
        content: bytes = figure.to_image(format=ending, width=WIDTH, height=height, scale=scale)
    except RuntimeError as error:  # of kaleido: it finds no browser, or that fails
        raise UserError(
            f"images need Chromium or Chrome, which was not found ({' '.join(str(error).split())[:200]})"
        ) from None
    return content
