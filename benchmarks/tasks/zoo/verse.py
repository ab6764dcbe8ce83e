"""Scores of a line of verse: the canonical line, or any that keeps to the constraints."""

from __future__ import annotations

from typing import Any

from evomerge.zoo.jobs.verse import broken


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Grade one generated line.

    Args:
        doc: With `prompt`, which states the constraints, and `answer`.
        results: One text.

    Returns:
        `exact_match` with the canonical line; `constraints_met`, of which several lines are right.
    """
    (text,) = results
    return {
        "exact_match": float(text == doc["answer"]),
        "constraints_met": float(not broken(doc["prompt"], text)),
    }
