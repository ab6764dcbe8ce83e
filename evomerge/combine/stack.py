"""Stacks as modules and as folders: a path through the layers of parents and merges, as one plain model."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from evomerge.candidate import Stack
from evomerge.errors import RecipeError
from evomerge.merge.checkpoint import Checkpoint, open_checkpoint
from evomerge.merge.content import content
from evomerge.merge.engine import MergeRun
from evomerge.merge.layout import restack
from evomerge.merge.live import LiveModel
from evomerge.merge.members import merged_checkpoint
from evomerge.merge.plan import plan_merge
from evomerge.merge.saving import save

SCALABLE = frozenset(
    [
        "gemma",
        "granite",
        "llama",
        "mistral",
        "phi3",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "smollm3",
    ]
)
"""transformers' `model_type`s whose blocks read the residual stream through a norm only, and write into it
by `candidate.stack.BRANCH_OUTPUTS`; each is tested."""


def scale_fault(model_type: str) -> str | None:
    """Return why the scales of a stack cannot be folded into the weights of such models; None: they can."""
    if model_type in SCALABLE:
        return None
    return (
        f"the scale of a layer's input cannot be folded into the weights of a {model_type} model: its "
        "blocks are not known to read the residual stream through a norm only"
    )


class StackBuilder:
    """Builds stacks from resident models, without a disk; layers that are the same share their memory.

    Args:
        live: The resident models.
    """

    def __init__(self, live: LiveModel) -> None:
        self._live = live

    def build(self, stack: Stack) -> PreTrainedModel:
        """Return a module of the base's class, deeper or less deep, in evaluation mode.

        It is, to the bit, what saving the stack and loading the result in the live model's dtype gives.

        Raises:
            RecipeError: The path is wrong.
            MergeError: The class decides by a layer's number what it consists of.
        """
        live = self._live
        check(stack, live.checkpoints)
        made = {
            name: merged_checkpoint(name, live.run(stack.members[name]), live.models)
            for name in stack.merges()
        }
        known = {**live.checkpoints, **made}
        plan = plan_merge(stack.recipe(), known)
        config = copy.deepcopy(live.module.config)
        layers = config.get_text_config().num_hidden_layers
        restack(config, [step.layer for step in stack.path], layers)
        run = MergeRun(plan, known, device=live.places(config))
        tensors: dict[str, torch.Tensor] = {}
        shared: dict[Hashable, torch.Tensor] = {}
        for piece in plan.tensors:
            key = piece.models, piece.tensors, repr(piece.own)
            if key not in shared:
                shared[key] = run.merged(piece, shared=True)
            tensors[piece.name] = shared[key]
        return live.load(config, tensors)


def save_stack(
    stack: Stack,
    out: Path | str,
    *,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    **options: Any,  # noqa: ANN401
) -> None:
    """Write a stack as a folder that transformers loads; options and errors are those of `saving.save`."""
    code, pickle = trust_remote_code, allow_pickle
    base = open_checkpoint(stack.base, trust_remote_code=code, allow_pickle=pickle)
    check(stack, {stack.base: base})
    recipe, merges = stack.recipe(), stack.merges()
    save(recipe, out, merges=merges, trust_remote_code=code, allow_pickle=pickle, **options)


def content_of(stack: Stack, checkpoints: Mapping[str, Checkpoint]) -> Hashable:
    """Return a value that is equal for stacks of the same tensors, up to rounding.

    That of all layers of one member in order is the member's own.
    """
    if not stack.path:
        return stack.text()
    base = next(iter(checkpoints.values()))
    member = stack.path[0].member
    layers = base.config.get_text_config().num_hidden_layers
    if list(stack.runs()) == [(member, 0, layers, 1.0)]:
        return content(stack.members[member], checkpoints)
    return stack.text() if stack.merges() else content(stack.recipe(), checkpoints)


def check(stack: Stack, checkpoints: Mapping[str, Checkpoint]) -> None:
    """Check what can be told of a stack from its base's configuration.

    Raises:
        RecipeError: The path has no layers, or scales that cannot be folded into the weights.
    """
    if not stack.path:
        raise RecipeError("the path has no layers; expected one at least")
    fault = scale_fault(checkpoints[stack.base].config.model_type)
    if fault is not None and any(step.scale != 1 for step in stack.path):
        raise RecipeError(fault)
