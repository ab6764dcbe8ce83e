"""What travels between driver and workers: recipes, jobs, outcomes; and mergekit's YAML in and out."""

from evomerge.candidate.mergekit_yaml import dumps, load, loads, located, save
from evomerge.candidate.numbers import Parts, parts, with_numbers
from evomerge.candidate.recipe import (
    Conditional,
    Recipe,
    Scalar,
    Setting,
    Slice,
    Source,
    Vocabulary,
)
from evomerge.candidate.tokens import TokenSource, token_sources

__all__ = [
    "Conditional",
    "Parts",
    "Recipe",
    "Scalar",
    "Setting",
    "Slice",
    "Source",
    "TokenSource",
    "Vocabulary",
    "dumps",
    "load",
    "loads",
    "located",
    "parts",
    "save",
    "token_sources",
    "with_numbers",
]
