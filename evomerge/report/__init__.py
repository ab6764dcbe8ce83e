"""A finished or running study → leaderboard, comparison, model card."""

from evomerge.report.card import model_card
from evomerge.report.comparison import Comparison, comparison
from evomerge.report.folders import compare_folders
from evomerge.report.front import front_json
from evomerge.report.html import html_table
from evomerge.report.leaderboard import Leaderboard, leaderboard, with_trial
from evomerge.report.render import FORMATS, Format, compare, render
from evomerge.report.rows import Row, Value
from evomerge.report.trials import list_trials, show_trial
from evomerge.report.warnings import zero_notes

__all__ = [
    "FORMATS",
    "Comparison",
    "Format",
    "Leaderboard",
    "Row",
    "Value",
    "compare",
    "compare_folders",
    "comparison",
    "front_json",
    "html_table",
    "leaderboard",
    "list_trials",
    "model_card",
    "render",
    "show_trial",
    "with_trial",
    "zero_notes",
]
