"""Figures of reports: a file each. Another one is a function, and an entry here.

A figure is drawn by plotly, from JSON: pages embed its JavaScript, notebooks and images use its Python
package. Nothing here imports either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from evomerge.report.figures.coefficients import coefficients_figure, rows_figure
from evomerge.report.figures.costs import costs_figure
from evomerge.report.figures.drawing import Drawing
from evomerge.report.figures.front import front_figure
from evomerge.report.figures.gap import gap_figure
from evomerge.report.figures.history import history_figure
from evomerge.report.figures.importances import importances_figure
from evomerge.report.figures.leaderboard import leaderboard_figure
from evomerge.report.figures.members import members_figure
from evomerge.report.figures.timeline import timeline_figure
from evomerge.report.material import Material


class Build(Protocol):
    """Draws a figure; it decides nothing, and escapes all text (`drawing.text`)."""

    def __call__(self, material: Material) -> Drawing | None:
        """Return `data` and `layout` as plain JSON, the background transparent; None: it does not apply."""


@dataclass(frozen=True)
class Figure:
    """A figure that any study may have.

    Attributes:
        name: Its key in `FIGURES`.
        title: For headings.
        about: What it shows, in a sentence, for those who do not see it.
        build: Draws it.
    """

    name: str
    title: str
    about: str
    build: Build


FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in (
        Figure(
            "leaderboard",
            "Scores by task",
            "Scores of the base, the experts, the naive merges and the winner on every task, with 95 % "
            "intervals.",
            leaderboard_figure,
        ),
        Figure(
            "history",
            "Search history",
            "Every trial's value and the best so far, against trials, item evaluations or seconds.",
            history_figure,
        ),
        Figure(
            "front",
            "Pareto front",
            "Two of the searched values against each other: every trial, and those that no other beats.",
            front_figure,
        ),
        Figure(
            "coefficients",
            "Numbers of the winner",
            "The winner's weight of every expert, by layers and component, as colours.",
            coefficients_figure,
        ),
        Figure(
            "rows",
            "Weights of single rows",
            "How the winner's weights spread over the rows of tensors: 5 %, quartiles and 95 %, by expert, "
            "layers and component.",
            rows_figure,
        ),
        Figure(
            "members",
            "Members of the winner",
            "What each member of the winner does: the share of every task's items that it answers, its "
            "weight, or where its layers stand.",
            members_figure,
        ),
        Figure(
            "importances",
            "Importance of the searched numbers",
            "How well each searched number tells the best tenth of the trials from all of them (PED-ANOVA).",
            importances_figure,
        ),
        Figure(
            "timeline",
            "What the workers did",
            "Every worker's trials, gradients and rows of the leaderboard over time; races lost and failures "
            "are marked.",
            timeline_figure,
        ),
        Figure(
            "costs",
            "Quality and costs",
            "Every model's mean against what it takes to serve it, relative to the base.",
            costs_figure,
        ),
        Figure(
            "gap",
            "Generalisation gap",
            "The mean of the winner, the best naive merge, the best expert and the base on the search, "
            "select and holdout items.",
            gap_figure,
        ),
    )
}
