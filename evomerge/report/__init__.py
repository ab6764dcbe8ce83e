"""A finished or running study → leaderboard, comparison, model card."""

from evomerge.report.card import model_card
from evomerge.report.comparison import Comparison, comparison
from evomerge.report.folders import compare_folders
from evomerge.report.leaderboard import Leaderboard, leaderboard
from evomerge.report.render import FORMATS, Format, compare, render
from evomerge.report.rows import Row, Value
from evomerge.report.selection import compared_baselines, selection_value

__all__ = [
    "FORMATS",
    "Comparison",
    "Format",
    "Leaderboard",
    "Row",
    "Value",
    "compare",
    "compare_folders",
    "compared_baselines",
    "comparison",
    "leaderboard",
    "model_card",
    "render",
    "selection_value",
]
