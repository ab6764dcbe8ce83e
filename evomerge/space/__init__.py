"""The search space: settings → Optuna distributions, points → candidates, gradients → gradient."""

from evomerge.space.baselines import Baseline, Wanted
from evomerge.space.choices import (
    Choice,
    choice_of,
    default_point,
    differentiable,
    first_choices,
    free,
    moved_to,
    neighbours,
)
from evomerge.space.dimensions import REST, Family
from evomerge.space.groups import layer_groups
from evomerge.space.needs import Needs
from evomerge.space.space import Space
from evomerge.space.transfer import transfer

__all__ = [
    "REST",
    "Baseline",
    "Choice",
    "Family",
    "Needs",
    "Space",
    "Wanted",
    "choice_of",
    "default_point",
    "differentiable",
    "first_choices",
    "free",
    "layer_groups",
    "moved_to",
    "neighbours",
    "transfer",
]
