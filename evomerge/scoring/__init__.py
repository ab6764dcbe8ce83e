"""A module × items → per-item scores and losses, by a backend: the very numbers of lm-eval."""

from evomerge.scoring.backend import BackendScorer
from evomerge.scoring.gold_loss import GoldLoss, Losses, gold_count
from evomerge.scoring.resident_lm import ResidentLM
from evomerge.scoring.scorer import Scored, Scorer
from evomerge.scoring.table import lm_eval_results, lm_eval_table

__all__ = [
    "BackendScorer",
    "GoldLoss",
    "Losses",
    "ResidentLM",
    "Scored",
    "Scorer",
    "gold_count",
    "lm_eval_results",
    "lm_eval_table",
]
