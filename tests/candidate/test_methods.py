"""The names that are known before the methods are imported."""

import pytest

from evomerge.candidate.methods import NOT_SUPPORTED, PARAMETERS, fault_of_method
from evomerge.merge import METHODS


def test_the_names_known_beforehand_are_those_of_the_methods():
    assert {name: set(method.parameters) for name, method in METHODS.items()} == {
        name: set(takes) for name, takes in PARAMETERS.items()
    }
    assert not set(NOT_SUPPORTED) & set(METHODS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_method_has_no_fault(name):
    assert fault_of_method(name) is None


def test_a_method_that_only_mergekit_has_is_answered_with_all_that_there_are():
    assert fault_of_method("sce") == (
        '"sce" is a method of mergekit that is not supported here; supported: '
        "dare_linear, dare_ties, linear, passthrough, slerp, task_arithmetic, ties"
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("tis", 'did you mean "ties"?'),
        ("TIES", "known: dare_linear, dare_ties, linear, "),
        ("", "known: dare_linear, dare_ties, linear, "),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, hint):
    assert fault_of_method(name).startswith(f'unknown method "{name}"; {hint}')
