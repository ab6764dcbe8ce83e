"""Which of a model's tensors have a row a token: the embeddings, and the output head, its own or tied."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from transformers import PretrainedConfig

if TYPE_CHECKING:
    from evomerge.merge.checkpoint import Checkpoint

NUMBERED = re.compile(r"(^|\.)\d+(\.|$)")
EMBEDDING = re.compile(r"embed|(^|\.)(wte|tok_embeddings)(\.|$)")
HEAD = re.compile(r"embed_out|unembed|(^|\.)(lm_head|output|head)(\.|$)")
OTHER_ROWS = re.compile(r"position|pos_emb|(^|\.)wpe(\.|$)|token_type|per_layer")
USUAL_HEAD = "lm_head.weight"


@dataclass(frozen=True)
class VocabularyTensors:
    """Names of the tensors whose first axis is the vocabulary.

    Attributes:
        embedding: Of the input embeddings; None where they cannot be told.
        heads: Weight and bias of the output head; none where it is tied to the embeddings.
    """

    embedding: str | None
    heads: tuple[str, ...]

    @classmethod
    def of(
        cls, config: PretrainedConfig, shapes: Mapping[str, tuple[int, ...]]
    ) -> VocabularyTensors:
        """Tell them by their names and by the number of rows that the config gives the vocabulary."""
        rows = getattr(config.get_text_config(), "vocab_size", None)
        fitting = [
            name
            for name, shape in shapes.items()
            if shape and shape[0] == rows and not NUMBERED.search(name)
        ]
        heads = tuple(name for name in fitting if is_head(name))
        embeddings = [
            name
            for name in fitting
            if EMBEDDING.search(name)
            and name not in heads
            and not OTHER_ROWS.search(name)
            and len(shapes[name]) == 2
        ]
        return cls(embeddings[0] if len(embeddings) == 1 else None, heads)

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (*([] if self.embedding is None else [self.embedding]), *self.heads)


def is_head(name: str) -> bool:
    """Tell whether a tensor outside the layers belongs to the output head, by its name."""
    return HEAD.search(name) is not None and not NUMBERED.search(name)


def is_head_weight(name: str) -> bool:
    """Tell whether a tensor is the output head's weight, by its name."""
    return is_head(name) and name.endswith(".weight")


def is_tied(config: PretrainedConfig) -> bool:
    """Tell whether the config, the outermost as in transformers, ties the output head to the embeddings."""
    inner = getattr(config.get_text_config(), "tie_word_embeddings", False)
    return bool(getattr(config, "tie_word_embeddings", inner))


def tied_config(config: PretrainedConfig, tied: bool) -> PretrainedConfig:
    """Return the configuration of the same model whose output head is, or is not, tied to the embeddings."""
    changed = copy.deepcopy(config)
    changed.tie_word_embeddings = tied
    changed.get_text_config().tie_word_embeddings = tied
    return changed


def untied_config(config: PretrainedConfig) -> PretrainedConfig:
    """Return the configuration of the same model with an output head of its own."""
    return tied_config(config, False)


def resized_config(config: PretrainedConfig, rows: int) -> PretrainedConfig:
    """Return the configuration of the same model with another number of rows."""
    if config.get_text_config().vocab_size == rows:
        return config
    changed = copy.deepcopy(config)
    changed.get_text_config().vocab_size = rows
    return changed


def with_heads(checkpoints: Mapping[str, Checkpoint]) -> dict[str, Checkpoint]:
    """Let models with tied heads contribute them as heads, if any of the models has a head of its own.

    A head of its own is one that the config does not tie to the embeddings. Where all models are tied, or
    none is, they are returned as they are.
    """
    own = [one for one in checkpoints.values() if not is_tied(one.config)]
    heads = [name for one in own for name in one.tensors if is_head_weight(name)]
    if not heads:
        return dict(checkpoints)
    head = USUAL_HEAD if USUAL_HEAD in heads else heads[0]
    return {
        name: _with_head(one, head) if is_tied(one.config) else one
        for name, one in checkpoints.items()
    }


def _with_head(tied: Checkpoint, head: str) -> Checkpoint:
    embedding = tied.vocabulary_tensors.embedding
    if embedding is None:
        return tied

    def read(name: str) -> torch.Tensor:
        return tied.tensor(embedding if name == head else name)

    tensors = dict(sorted({**tied.tensors, head: tied.tensors[embedding]}.items()))
    return replace(
        tied,
        config=untied_config(tied.config),
        tensors=tensors,
        adapted=tied.adapted | {head} if embedding in tied.adapted else tied.adapted,
        _read=read,
    )
