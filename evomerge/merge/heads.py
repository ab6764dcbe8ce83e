"""One family, one kind of output head: where a model has one of its own, tied ones are written out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.vocabulary_tensors import (
    USUAL_HEAD,
    VocabularyTensors,
    is_head,
    is_tied,
    untied_config,
)


def with_heads(checkpoints: Mapping[str, Checkpoint]) -> dict[str, Checkpoint]:
    """Let models with tied heads contribute them as heads, if any of the models has a head of its own.

    A head of its own is one that the config does not tie to the embeddings. Where all models are tied, or
    none is, they are returned as they are.
    """
    own = [one for one in checkpoints.values() if not is_tied(one.config)]
    heads = [name for one in own for name in one.tensors if is_head(name) and _is_weight(name)]
    if not heads:
        return dict(checkpoints)
    head = USUAL_HEAD if USUAL_HEAD in heads else heads[0]
    return {
        name: _with_head(one, head) if is_tied(one.config) else one
        for name, one in checkpoints.items()
    }


def _with_head(tied: Checkpoint, head: str) -> Checkpoint:
    shapes = {name: header.shape for name, header in tied.tensors.items()}
    embedding = VocabularyTensors.of(tied.config, shapes).embedding
    if embedding is None:
        return tied

    def read(name: str) -> torch.Tensor:
        return tied.tensor(str(embedding) if name == head else name)

    tensors = dict(sorted({**tied.tensors, head: tied.tensors[embedding]}.items()))
    return replace(tied, config=untied_config(tied.config), tensors=tensors, _read=read)


def _is_weight(name: str) -> bool:
    return name.endswith(".weight")
