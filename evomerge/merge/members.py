"""Merges as models that another merge is made of; nothing is written in between."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch

from evomerge.candidate import Recipe, Vocabulary
from evomerge.errors import RecipeError
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.engine import MergeRun
from evomerge.merge.models import OpenModels
from evomerge.merge.plan import MergePlan, plan_merge
from evomerge.merge.validation import check_recipe


def merged_checkpoint(name: str, run: MergeRun, models: OpenModels) -> Checkpoint:
    """Return a merge as a model: as if it had been saved and opened, its tensors computed at each call.

    Args:
        name: What recipes call it.
        run: The merge.
        models: What it is made of.
    """
    pieces = {piece.name: piece for piece in run.plan.tensors}
    config = copy.deepcopy(run.plan.config)
    if models.vocabulary is not None:
        models.vocabulary.configure(config, run.plan.models[0])
    return Checkpoint(
        name=name,
        folder=models.base.folder,
        config=config,
        tensors={one: run.header(pieces[one]) for one in sorted(pieces)},
        _read=lambda one: run.merged(pieces[one], shared=True),
        adapted=frozenset(pieces),
        tokens_from=models.base.tokens_from,
    )


def seen_beside(
    plan: MergePlan,
    models: OpenModels,
    merges: Mapping[str, Recipe],
    made: Mapping[str, Checkpoint],
) -> Mapping[str, Checkpoint]:
    """Return merges and models as another merge reads them.

    Where the merges match their rows by token, the models' rows are matched to theirs; a token that an input
    lacks is filled up by `vocabulary`'s rules.

    Args:
        plan: Of the other merge.
        models: All that are open.
        merges: What each merge is made of.
        made: The merges as models, in their vocabulary already.
    """
    known = {**models.checkpoints, **made}
    if models.vocabulary is None:
        return known
    vocabulary = models.vocabulary.of_merges({n: one.model_names() for n, one in merges.items()})
    whole = {name: one for name, one in made.items() if not vocabulary.lacks(name)}
    return {**vocabulary.seen(plan, known), **whole}


def merge_runs(
    merges: Mapping[str, Recipe], models: OpenModels, device: torch.device
) -> dict[str, MergeRun]:
    """Plan merges that another one is made of.

    Raises:
        RecipeError: One is wrong; its field begins with the merge's name.
        ModelError: As `plan_merge` does.
    """
    runs = {}
    for name, merge in merges.items():
        try:
            check_recipe(merge)
            for model in merge.model_names():
                if model in merges:
                    raise RecipeError(f"is made of {model}, which is itself a merge of this file")
            plan = plan_merge(merge, models.checkpoints)
            runs[name] = MergeRun(plan, models.seen(plan), device=device)
        except RecipeError as error:
            field = name if error.field is None else f"{name}.{error.field}"
            raise RecipeError(error.message, field=field) from None
    return runs


def common_vocabulary(recipe: Recipe, merges: Mapping[str, Recipe]) -> Vocabulary | None:
    """Return how all of the merges that a model is made of match vocabularies.

    Raises:
        RecipeError: They do it in unlike ways, or the model does it once more.
    """
    if recipe.vocabulary is not None:
        raise RecipeError(
            "a tokenizer is chosen in each of the merges that a model is made of, not in the last document",
            field="tokenizer",
        )
    first, *others = (merge.vocabulary for merge in merges.values())
    if any(other != first for other in others):
        raise RecipeError(
            f"the merges {', '.join(merges)} choose unlike tokenizers; expected the same in all",
            field="tokenizer",
        )
    return first
