"""A module × items → per-item scores and losses, by a backend: the very numbers of lm-eval."""

from evomerge.scoring.answering import Scored
from evomerge.scoring.backends import BACKENDS, Backend, backend_type, is_resident, open_backend
from evomerge.scoring.item_loss import Losses, gold_count
from evomerge.scoring.live_vllm import Texts, VllmScorer
from evomerge.scoring.lm_eval_backend import LmEvalBackend
from evomerge.scoring.resident_lm import ResidentLM
from evomerge.scoring.scorer import MemberPart, Scorer
from evomerge.scoring.table import lm_eval_results, lm_eval_table

__all__ = [
    "BACKENDS",
    "Backend",
    "LmEvalBackend",
    "Losses",
    "MemberPart",
    "ResidentLM",
    "Scored",
    "Scorer",
    "Texts",
    "VllmScorer",
    "backend_type",
    "gold_count",
    "is_resident",
    "lm_eval_results",
    "lm_eval_table",
    "open_backend",
]
