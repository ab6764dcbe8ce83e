"""Recipe → weights: merge maths, checkpoints, a live model with resident experts, saving."""

from evomerge.merge.checkpoint import Checkpoint, TensorHeader, open_checkpoint
from evomerge.merge.content import content
from evomerge.merge.engine import merged_tensors
from evomerge.merge.family import check_family
from evomerge.merge.finite import check_finite
from evomerge.merge.gradients import GradientTape
from evomerge.merge.heads import with_heads
from evomerge.merge.layout import Layout
from evomerge.merge.live import LiveModel
from evomerge.merge.location import locate
from evomerge.merge.methods import METHODS, Method, ParameterSpec, method
from evomerge.merge.resident import Memory
from evomerge.merge.saving import save
from evomerge.merge.tokenizer import load_tokenizer
from evomerge.merge.tokens import check_tokens
from evomerge.merge.validation import check_recipe
from evomerge.merge.vocabulary import OutputVocabulary, merged_tokenizer

__all__ = [
    "METHODS",
    "Checkpoint",
    "GradientTape",
    "Layout",
    "LiveModel",
    "Memory",
    "Method",
    "OutputVocabulary",
    "ParameterSpec",
    "TensorHeader",
    "check_family",
    "check_finite",
    "check_recipe",
    "check_tokens",
    "content",
    "load_tokenizer",
    "locate",
    "merged_tensors",
    "merged_tokenizer",
    "method",
    "open_checkpoint",
    "save",
    "with_heads",
]
