"""Recipes: everything needed to rebuild one merged model, and mergekit's YAML in and out."""

from evomerge.recipe.mergekit_yaml import dumps, load, loads, located, save
from evomerge.recipe.numbers import Parts, parts, with_numbers
from evomerge.recipe.recipe import (
    Conditional,
    Recipe,
    Scalar,
    Setting,
    Slice,
    Source,
    Vocabulary,
)
from evomerge.recipe.tokens import TokenSource, token_sources

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
