"""Methods by name."""

from __future__ import annotations

import warnings

import pytest

from evomerge.candidate.methods import NOT_SUPPORTED
from evomerge.errors import RecipeError
from evomerge.merge import METHODS, method


def test_known_names():
    wanted = {
        "linear",
        "slerp",
        "task_arithmetic",
        "ties",
        "dare_linear",
        "dare_ties",
        "passthrough",
    }
    assert wanted <= set(METHODS)
    assert method("ties") is METHODS["ties"]


def test_an_unknown_name():
    with pytest.raises(RecipeError, match='merge_method: unknown method "dare_tie"; did you'):
        method("dare_tie")


def test_every_method_of_mergekit_is_known_or_said_to_be_missing():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mergekit's own
        from mergekit.merge_methods.registry import registered_methods
    theirs = {each.spec.name for each in registered_methods()}
    assert theirs == set(METHODS) | set(NOT_SUPPORTED)
    for name in NOT_SUPPORTED:
        with pytest.raises(
            RecipeError, match=f'"{name}" is a method of mergekit .*: dare_linear, d'
        ):
            method(name)
