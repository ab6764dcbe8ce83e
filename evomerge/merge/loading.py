"""Modules of transformers from files and from tensors, on the devices that they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from evomerge.errors import MergeError, ModelError
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.heads import is_tied, untied_config
from evomerge.merge.names import auto_class


def load_base(base: Checkpoint, **options: Any) -> PreTrainedModel:  # noqa: ANN401
    """Load a model tensor by tensor to its devices: the host never holds a copy of a model for a GPU.

    Args:
        base: The model.
        options: transformers' own, such as `dtype` and `device_map`.

    Raises:
        ModelError: transformers cannot load it.
    """
    try:
        with _without_bars():
            module: PreTrainedModel = auto_class(base.config).from_pretrained(
                base.folder, **options
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"transformers cannot load it: {reason}", file=base.name) from None
    if is_tied(module.config) and not is_tied(base.config):
        _untie(module)
    return module


def load_tensors(
    like: PreTrainedModel,
    config: PretrainedConfig,
    tensors: Mapping[str, torch.Tensor],
    **options: Any,  # noqa: ANN401
) -> PreTrainedModel:
    """Return a module as if its tensors were read from a file; it may share their memory.

    Args:
        like: A module of the same class.
        config: Of the new one.
        tensors: By name.
        options: As of `load_base`.

    Raises:
        MergeError: They are not those of such a model.
    """
    with _without_bars():
        loaded, report = type(like).from_pretrained(
            None, config=config, state_dict=dict(tensors), output_loading_info=True, **options
        )
    unused = report["unexpected_keys"] or report["missing_keys"] or report["mismatched_keys"]
    if unused:
        raise MergeError(f"transformers does not take the merged tensors: {sorted(unused)[0]}")
    loaded.generation_config = like.generation_config
    module: PreTrainedModel = loaded.eval()
    return module.requires_grad_(False)


def _untie(module: PreTrainedModel) -> None:
    """Give a module with a tied output head a copy of the embeddings as head of its own."""
    head = module.get_output_embeddings()
    if head is not None:
        module.config = untied_config(module.config)
        head.weight = torch.nn.Parameter(module.get_input_embeddings().weight.detach().clone())


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep transformers' own progress bars off the terminal; progress is the caller's to show."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
