"""A card's metadata, as the Hub reads it: parents, licence, tags, and the scores as a model index."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from evomerge.candidate import Candidate, Merge
from evomerge.candidate.trial import Split
from evomerge.config.model_names import hub_ids
from evomerge.kinds import kind_of
from evomerge.merge.methods import mergekit_lacks
from evomerge.report.parents import ParentCard, licence_metadata
from evomerge.report.rows import Row
from evomerge.report.summary import Summary

TEXT_GENERATION = "text-generation"
_NOT_PLAIN = re.compile(r"[^\w.,:/ -]")


def metadata(campaign: Summary, row: Row, split: Split, parents: Sequence[ParentCard]) -> str:
    """Write a card's front matter, without the lines of dashes.

    Args:
        campaign: Whose model it is.
        row: The model.
        split: Whose scores it states.
        parents: What base and experts say of themselves.
    """
    results = _results(row, split)
    linked = hub_ids([campaign.base, *campaign.experts.values(), *row.recipe.model_names()])
    is_whole = not kind_of(row.recipe).own_form
    datasets = dict.fromkeys(name for card in parents for name in card.datasets)
    licence: dict[str, Any] = {**licence_metadata(parents)}
    data = ModelCardData(
        model_name=_NOT_PLAIN.sub("_", campaign.name) if results else None,
        library_name="transformers",
        pipeline_tag=TEXT_GENERATION,
        base_model=linked or None,
        base_model_relation="merge" if linked and is_whole else None,
        tags=_tags(row.recipe, is_whole=is_whole),
        datasets=list(datasets) or None,
        metrics=list(dict.fromkeys(one.metric_type for one in results)) or None,
        eval_results=results or None,
        **licence,
    )
    return data.to_yaml() + "\n"


def fixed_parameters(candidate: Candidate) -> list[Mapping[str, object]]:
    """Return the parameters that a merge has everywhere, in a list; none of another kind."""
    return [candidate.fixed] if isinstance(candidate, Merge) else []


def _tags(candidate: Candidate, *, is_whole: bool) -> list[str]:
    tags = ["merge"] if is_whole else []
    tags.append("evomerge")
    lacking = mergekit_lacks(candidate.methods, fixed_parameters(candidate))
    if is_whole and not candidate.arrays() and candidate.statistics is None and not lacking:
        tags.append("mergekit")  # which reads the recipe, too
    return [*tags, candidate.method if isinstance(candidate, Merge) else candidate.kind]


def _results(row: Row, split: Split) -> list[EvalResult]:
    """Return each value with its 95 % interval and the number of items behind it."""
    scores = row.splits.get(split)
    if scores is None or scores.estimated:
        return []
    return [
        EvalResult(
            task_type=TEXT_GENERATION,
            dataset_type=_NOT_PLAIN.sub("_", task),
            dataset_name=_NOT_PLAIN.sub("_", task),
            dataset_args={"split": split, "items": value.n},
            metric_type=metric,
            metric_value=value.value,
            metric_name=f"{metric} ({value.n} items)",
            metric_args=_given({"low": value.low, "high": value.high, "stderr": value.stderr}),
        )
        for task, metrics in scores.tasks.items()
        for metric, value in metrics.items()
    ]


def _given(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}
