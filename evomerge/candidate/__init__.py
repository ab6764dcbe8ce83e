"""What travels between driver and workers: candidates, jobs, outcomes; and mergekit's YAML in and out."""

from evomerge.candidate.candidate import Arrays, Candidate, no_arrays
from evomerge.candidate.coefficients import NEEDS_COEFFICIENTS, Coefficients
from evomerge.candidate.merge import Merge
from evomerge.candidate.mergekit_yaml import dumps, dumps_all, load, load_all, loads, located, save
from evomerge.candidate.mixture import Mixture
from evomerge.candidate.moe_recipe import MoeRecipe
from evomerge.candidate.recipe import (
    Conditional,
    Recipe,
    Scalar,
    Setting,
    Slice,
    Source,
    Vocabulary,
)
from evomerge.candidate.size import Size
from evomerge.candidate.stack import PathStep, Stack
from evomerge.candidate.tokens import TokenSource, token_sources

__all__ = [
    "NEEDS_COEFFICIENTS",
    "Arrays",
    "Candidate",
    "Coefficients",
    "Conditional",
    "Merge",
    "Mixture",
    "MoeRecipe",
    "PathStep",
    "Recipe",
    "Scalar",
    "Setting",
    "Size",
    "Slice",
    "Source",
    "Stack",
    "TokenSource",
    "Vocabulary",
    "dumps",
    "dumps_all",
    "load",
    "load_all",
    "loads",
    "located",
    "no_arrays",
    "save",
    "token_sources",
]
