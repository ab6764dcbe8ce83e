"""Which of a model's tensors have a row a token: the embeddings, and the output head."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PretrainedConfig

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


def is_tied(config: PretrainedConfig) -> bool:
    """Tell whether the config ties the output head to the embeddings."""
    return bool(getattr(config.get_text_config(), "tie_word_embeddings", False))


def untied_config(config: PretrainedConfig) -> PretrainedConfig:
    """Return the configuration of the same model with an output head of its own."""
    changed = copy.deepcopy(config)
    changed.tie_word_embeddings = False
    changed.get_text_config().tie_word_embeddings = False
    return changed


def resized_config(config: PretrainedConfig, rows: int) -> PretrainedConfig:
    """Return the configuration of the same model with another number of rows."""
    if config.get_text_config().vocab_size == rows:
        return config
    changed = copy.deepcopy(config)
    changed.get_text_config().vocab_size = rows
    return changed


def with_rows(
    config: PretrainedConfig,
    before: Mapping[str, tuple[int, ...]],
    after: Mapping[str, tuple[int, ...]],
) -> PretrainedConfig:
    """Return the configuration of a model whose embeddings got other rows.

    Args:
        config: As it was.
        before: Shapes of the tensors, as they were.
        after: And as they are.
    """
    embedding = VocabularyTensors.of(config, before).embedding
    return config if embedding is None else resized_config(config, after[embedding][0])
