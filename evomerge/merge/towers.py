"""Plain language models beside a base that sees or hears besides: each in the place of its language part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.family import merged_names
from evomerge.merge.heads import is_tied, resized_config, tied_config
from evomerge.merge.layout import Layout, is_composite


def with_towers(checkpoints: Mapping[str, Checkpoint]) -> dict[str, Checkpoint]:
    """Give plain language models the towers of the first model, if it has any; others are as they are.

    All that lies outside the first one's language model (towers, projectors) is its own in each of them, so
    that it stays as it is. Whether the language parts fit is told by their tensors (`check_family`).
    """
    base = next(iter(checkpoints.values()))
    if not is_composite(base.config):
        return dict(checkpoints)
    return {
        name: one if is_composite(one.config) else _beside(one, base)
        for name, one in checkpoints.items()
    }


def _beside(model: Checkpoint, base: Checkpoint) -> Checkpoint:
    own, wanted = Layout.of(model), Layout.of(base)
    heads = {name.rsplit(".")[-1]: name for name in base.vocabulary_tensors.heads}

    def place(name: str) -> str:
        if name in model.vocabulary_tensors.heads:
            return heads.get(name.rsplit(".")[-1], name)
        for mine, theirs in ((own.prefix, wanted.prefix), (own.language, wanted.language)):
            if name.startswith(mine):
                return theirs + name.removeprefix(mine)
        return name

    origin = {place(name): name for name in merged_names(model)}
    towers = {
        name
        for name in base.tensors
        if not name.startswith(wanted.language) and name not in heads.values()
    }

    def read(name: str) -> torch.Tensor:
        return base.tensor(name) if name in towers else model.tensor(origin[name])

    headers = {name: base.tensors[name] for name in towers}
    headers |= {name: model.tensors[stored] for name, stored in origin.items()}
    config = tied_config(base.config, is_tied(model.config))
    return replace(
        model,
        config=config if model.rows is None else resized_config(config, model.rows),
        tensors=dict(sorted(headers.items())),
        adapted=frozenset(name for name, stored in origin.items() if stored in model.adapted),
        updates={
            name: model.updates[stored]
            for name, stored in origin.items()
            if stored in model.updates
        },
        _read=read,
        _origin=lambda name: model.origin(origin[name]),
    )
