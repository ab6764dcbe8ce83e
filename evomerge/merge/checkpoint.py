"""One model's tensors, memory-mapped; only headers are read until a tensor is asked for."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PretrainedConfig

from evomerge.errors import ModelError
from evomerge.merge.adapter import with_adapter
from evomerge.merge.adapter_file import open_adapter
from evomerge.merge.files import TensorHeader, WeightFiles, stored_tensors, weight_files
from evomerge.merge.heads import VocabularyTensors
from evomerge.merge.location import locate, split_adapter
from evomerge.merge.methods.low_rank import Factors
from evomerge.merge.names import ModelNames, model_names, parameter_names
from evomerge.merge.quantised import check_config, gguf_error


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model on disk; equal to itself only.

    Attributes:
        name: As it was asked for.
        folder: Where the config is; for `MODEL+ADAPTER` the model's.
        config: transformers' configuration.
        tensors: Name → header, in the order of the names: the model's own names (`merge.names`), whatever
            the base prefix in the file, and without the buffers that transformers ignores.
        adapted: Tensors that are computed at each call, which an adapter changes or a vocabulary fills up;
            the others are views of their files.
        missing: Parameters of the model that no file gives.
        tokens_from: Where the tokenizer is, of an adapter that brings tokens; None: in `folder`.
        views: Tensor → what tells its values from those of other checkpoints of this name (`rows`).
        updates: Tensor → what an adapter adds to the model's own, of those where it does nothing else.
    """

    name: str
    folder: Path
    config: PretrainedConfig
    tensors: Mapping[str, TensorHeader]
    _read: Callable[[str], torch.Tensor] = field(repr=False)
    adapted: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    tokens_from: Path | None = None
    views: Mapping[str, Hashable] = field(default_factory=dict, repr=False)
    updates: Mapping[str, Factors] = field(default_factory=dict, repr=False)
    _origin: Callable[[str], torch.Tensor] | None = field(default=None, repr=False)

    @cached_property
    def vocabulary_tensors(self) -> VocabularyTensors:
        """Which of its tensors have a row a token."""
        shapes = {name: header.shape for name, header in self.tensors.items()}
        return VocabularyTensors.of(self.config, shapes)

    @property
    def rows(self) -> int | None:
        """Number of rows of its embeddings; None where they cannot be told."""
        embedding = self.vocabulary_tensors.embedding
        return None if embedding is None else self.tensors[embedding].shape[0]

    def key(self, tensor: str) -> tuple[Hashable, ...]:
        """Return what tells the values of one tensor from those of all other models' tensors.

        What an adapter leaves as it is has the key of the model's own tensor.
        """
        if self.is_mapped(tensor) and tensor not in self.views:
            return str(self.folder), tensor, None
        return self.name, tensor, self.views.get(tensor)

    def origin_key(self, tensor: str) -> tuple[Hashable, ...] | None:
        """Return the key of what a tensor is without its update; None: it does not update a stored one."""
        if tensor in self.updates:
            return str(self.folder), tensor, None
        return self.key(tensor) if self.is_mapped(tensor) else None

    def origin(self, tensor: str) -> torch.Tensor:
        """Return a tensor without its update, as it is stored; never write into it."""
        known = self._origin is not None and tensor in self.updates
        return self._origin(tensor) if known and self._origin is not None else self.tensor(tensor)

    def is_mapped(self, tensor: str) -> bool:
        """Tell whether a tensor is a view of its file; otherwise it is computed at each call."""
        return tensor not in self.adapted

    @property
    def tokenizer_folder(self) -> Path:
        """Where its tokenizer is."""
        return self.folder if self.tokens_from is None else self.tokens_from

    def tensor(self, name: str) -> torch.Tensor:
        """Return one tensor as it is stored, on the CPU; a view of the file: never write into it.

        Raises:
            ModelError: The model has no such tensor, or its file can no longer be read.
        """
        if name not in self.tensors:
            raise ModelError(f"has no tensor {name}", file=self.name)
        return self._read(name)


def open_checkpoint(
    model: str, *, allow_pickle: bool = False, trust_remote_code: bool = False
) -> Checkpoint:
    """Open a model: a folder, a Hub id, or `MODEL+ADAPTER` for a LoRA adapter on top of a model.

    Args:
        model: Its name; a Hub id may carry `@revision`.
        allow_pickle: Accept PyTorch pickles where there is no safetensors file.
        trust_remote_code: Let transformers run the model's own configuration code.

    Raises:
        ModelError: The model is missing, incomplete, damaged or quantised, or the adapter cannot be merged.
    """
    name, adapter = split_adapter(model)
    folder = locate(name, allow_pickle=allow_pickle, trust_remote_code=trust_remote_code)
    if not (folder / "config.json").is_file() and (folder / "adapter_config.json").is_file():
        raise ModelError(f"is a LoRA adapter, not a model; name it as MODEL+{model}", file=folder)
    check_config(folder)
    config = _config(folder, trust_remote_code)
    files = weight_files(
        folder, named=getattr(config, "transformers_weights", None), allow_pickle=allow_pickle
    )
    names = model_names(config, trust_remote_code=trust_remote_code)
    stored, read_stored = stored_tensors(files, None if names is None else names.state)
    _check_index(files, stored, names)
    places = _places(files, stored, names)
    opened = Checkpoint(
        name=model,
        folder=folder,
        config=config,
        tensors={name: stored[place] for name, place in places.items()},
        _read=lambda name: read_stored(places[name]),
        missing=frozenset() if names is None or not names.own_class else names.missing(stored),
    )
    if adapter is None:
        return opened
    lora = open_adapter(locate(adapter, allow_pickle=allow_pickle), allow_pickle=allow_pickle)
    own = parameter_names(config, places, trust_remote_code=trust_remote_code)
    stored_as = {parameter: name for name, parameter in own.items()}
    changes = {stored_as.get(name, name): change for name, change in lora.changes.items()}
    return with_adapter(opened, replace(lora, changes=changes))


def _config(folder: Path, trust_remote_code: bool) -> PretrainedConfig:
    path = folder / "config.json"
    if not path.is_file():
        for gguf in sorted(folder.glob("*.gguf")):
            raise gguf_error(gguf)
        raise ModelError("no config.json; expected a model in Hugging Face format", file=folder)
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError, StrictDataclassError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"not a configuration that transformers reads: {reason}", file=path
        ) from None


def _places(
    files: WeightFiles, stored: Mapping[str, TensorHeader], names: ModelNames | None
) -> dict[str, str]:
    """The model's own name of each tensor → its name in the file; in the order of the former."""
    places: dict[str, str] = {}
    for place in stored:
        name = place if names is None else names.canonical(place)
        if name is None:
            continue
        if name in places:
            raise ModelError(
                f"holds {places[name]} and {place}, which are one tensor of the model",
                file=files.index or files.files[0],
            )
        places[name] = place
    return dict(sorted(places.items()))


def _check_index(
    files: WeightFiles, stored: Mapping[str, TensorHeader], names: ModelNames | None
) -> None:
    """Check that the shards hold what the index says; tied heads and ignored buffers may be missing."""
    lost = sorted(files.mapped.keys() - stored.keys())
    if lost and names is not None:
        lost = names.lost(lost, stored)
    if lost:
        raise ModelError(
            f"says that {files.mapped[lost[0]]} holds {lost[0]}, which it does not; copy or download "
            "the model again",
            file=files.index,
        )
