"""Estimates follow the sizes of models and items."""

from __future__ import annotations

from evomerge.preflight.rates import rates


def test_rates_are_those_of_products_and_tokens(checked):
    found = rates(checked(), "cpu")
    assert 0 < found.searched == found.reported
    assert 0 < found.gradient < 2 * found.searched  # of one item of one of two tasks


def test_a_metric_that_is_only_reported_costs_generation(checked):
    ready = checked(
        "zoo_facts, metric: exact_match", "zoo_facts, metric: gold_loglikelihood, report: exact_match",
        "zoo_tools, metric: exact_match", "zoo_tools, metric: gold_loglikelihood, report: exact_match",
    )  # fmt: skip
    found = rates(ready, "cpu")
    assert found.reported > found.searched  # which only reads, and writes nothing
