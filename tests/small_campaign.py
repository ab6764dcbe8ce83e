"""A small campaign on the zoo, as a file and with other settings of its search."""

from __future__ import annotations

from pathlib import Path

from evomerge.config import Campaign

ROOT = Path(__file__).parents[1]
TEXT = f"""\
name: small
models:
  base: zoo:base
  experts: [zoo:facts, zoo:translation]
  dtype: float32
space:
  method: task_arithmetic
  layers: 2
  parameters:
    weight: {{low: 0.0, high: 1.2}}
objectives:
  - {{task: zoo_facts, metric: gold_loglikelihood, report: exact_match}}
  - {{task: zoo_translation, metric: gold_loglikelihood, report: exact_match}}
tasks_path: {ROOT}/benchmarks/tasks
items: {{search: 8, select: 8, holdout: 16}}
search: {{sampler: cmaes, trials: 6, finalists: 2}}
workers: {{count: 0}}
out: out
"""


def changed(campaign: Campaign, out: Path, **settings: object) -> Campaign:
    """A campaign with other settings of its search."""
    search = campaign.search.model_copy(update=settings)
    return campaign.model_copy(update={"search": search, "out": str(out)})
