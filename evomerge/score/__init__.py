"""Scores of a module on lm-eval's tasks: the very numbers of lm-eval, from fewer and leaner passes."""

from evomerge.score.backend import BackendScorer
from evomerge.score.counting import document_counts
from evomerge.score.failures import Collapsed, NotFinite
from evomerge.score.gold_loss import GoldLoss, Losses, gold_count
from evomerge.score.items import Items, load_items
from evomerge.score.metrics import task_metrics
from evomerge.score.requested import PromptStyle, SplitPlan, TaskRequest
from evomerge.score.resident_lm import ResidentLM
from evomerge.score.scorer import Scored, Scorer
from evomerge.score.table import lm_eval_results, lm_eval_table
from evomerge.score.tasks import expand, list_tasks

__all__ = [
    "BackendScorer",
    "Collapsed",
    "GoldLoss",
    "Items",
    "Losses",
    "NotFinite",
    "PromptStyle",
    "ResidentLM",
    "Scored",
    "Scorer",
    "SplitPlan",
    "TaskRequest",
    "document_counts",
    "expand",
    "gold_count",
    "list_tasks",
    "lm_eval_results",
    "lm_eval_table",
    "load_items",
    "task_metrics",
]
