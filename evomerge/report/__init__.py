"""A finished or running study → leaderboard, comparison, model card, in any format."""

from evomerge.report.card import model_card
from evomerge.report.comparison import compare_folders, comparison
from evomerge.report.formats import FORMATS, Format, render, write
from evomerge.report.front import front_json
from evomerge.report.grid import Report
from evomerge.report.layout import leaderboard_report
from evomerge.report.leaderboard import Leaderboard, leaderboard, with_trial
from evomerge.report.notes import zero_notes
from evomerge.report.trials import trial_report, trials_report

__all__ = [
    "FORMATS",
    "Format",
    "Leaderboard",
    "Report",
    "compare_folders",
    "comparison",
    "front_json",
    "leaderboard",
    "leaderboard_report",
    "model_card",
    "render",
    "trial_report",
    "trials_report",
    "with_trial",
    "write",
    "zero_notes",
]
