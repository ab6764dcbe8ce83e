"""A stored tensor's name → the name that the model itself gives it, by transformers' rule of loading.

One model can be stored with or without its base prefix (`transformer.`, `model.`), and with or without
buffers that it computes itself (rotary frequencies, attention masks). Here both are read as one and the
same: the prefix is added or dropped as the model's own names ask (`base_model_prefix`), and what
transformers ignores when it loads is left out.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM, PretrainedConfig
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.models.auto import modeling_auto

from evomerge.merge.spread import ModelPart, parts_of

# Of any architecture: published before transformers made these buffers the model's own affair.
BUFFERS = (r"rotary_emb\.inv_freq$", r"(^|\.)(attn|attention)\.(bias|masked_bias)$")
UNKNOWN = (ValueError, KeyError, TypeError, AttributeError, OSError, ImportError, RuntimeError)


@dataclass(frozen=True)
class ModelNames:
    """The names that a model's class gives its tensors.

    Attributes:
        prefix: Of the base model, such as `transformer`.
        state: Everything that a file may hold → whether it is of floating-point numbers.
        needed: What the files must hold: parameters that are neither tied nor optional.
        ignored: What transformers leaves out when it loads.
        renamings: transformers' own, of older formats.
        converters: transformers' own, such as experts fused at loading.
        own_class: The config names this class; a file of another, such as a body without its head, lacks
            what it never had.
        parts: Its modules that several devices may share out among them.
    """

    prefix: str
    state: dict[str, bool]
    needed: frozenset[str]
    ignored: re.Pattern[str]
    renamings: tuple[WeightRenaming, ...]
    converters: tuple[WeightConverter, ...]
    own_class: bool
    parts: tuple[ModelPart, ...]
    _found: dict[tuple[str, str | None], tuple[str, str | None]] = field(
        default_factory=dict, repr=False
    )

    def canonical(self, stored: str) -> str | None:
        """Return the name under which a stored tensor is known; None: it is left out."""
        loaded = self._loaded(stored)
        if loaded not in self.state:
            return None if self.ignored.search(loaded) else stored
        plain, _ = self._renamed(stored, None)
        head = f"{self.prefix}."
        if loaded == head + plain:
            return head + stored
        return stored.removeprefix(head) if plain == head + loaded else stored

    def parameter(self, stored: str) -> str | None:
        """Return the parameter that a stored tensor is; None: transformers makes another of it at loading."""
        loaded, pattern = self._loaded(stored), self._renamed(stored, self.prefix)[1]
        is_converted = any(pattern in converter.source_patterns for converter in self.converters)
        return loaded if loaded in self.state and not is_converted else None

    def missing(self, stored: Iterable[str]) -> frozenset[str]:
        """Return the parameters that none of the stored tensors gives."""
        return self.needed - {given for name in stored for given in self._given(name)}

    def lost(self, names: Iterable[str], stored: Iterable[str]) -> list[str]:
        """Return which of some names, that are not stored, would give a parameter that is missing."""
        missing = self.missing(stored)
        return [name for name in names if self._loaded(name) in missing]

    def _loaded(self, stored: str) -> str:
        """Name of the parameter that transformers reads a stored tensor into, or makes a part of."""
        loaded, _ = self._renamed(stored, self.prefix)
        if loaded not in self.state and stored in self.state:
            return stored
        return loaded

    def _given(self, stored: str) -> Iterator[str]:
        """Names of all parameters that a stored tensor gives; several where it is split at loading."""
        loaded = self._loaded(stored)
        yield loaded
        _, pattern = self._renamed(stored, self.prefix)
        for converter in self.converters:
            if pattern in converter.source_patterns:
                first, *others = converter.target_patterns
                yield from (loaded.replace(first, other) for other in others)

    def _renamed(self, stored: str, prefix: str | None) -> tuple[str, str | None]:
        """Transformers' own renaming, and the pattern of the converter that it found."""
        if (stored, prefix) not in self._found:
            self._found[stored, prefix] = rename_source_key(
                stored,
                list(self.renamings),
                list(self.converters),
                base_model_prefix=prefix,
                meta_state_dict=self.state,
            )
        return self._found[stored, prefix]


def auto_class(config: PretrainedConfig) -> Any:  # noqa: ANN401 - transformers' auto classes have no common type
    """Return the auto class that builds the model of a configuration.

    That is a causal language model. One that sees or hears besides is built with all of its parts where the
    configuration says so, or where transformers knows its language part under no name of its own.
    """
    kind = config.model_type
    whole = modeling_auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES.get(kind)
    is_alone = kind not in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if whole is not None and (is_alone or whole in (config.architectures or ())):
        return AutoModelForMultimodalLM
    return AutoModelForCausalLM


def model_names(config: PretrainedConfig, *, trust_remote_code: bool) -> ModelNames | None:
    """Return the names of a configuration's model (`auto_class`), built without memory.

    Returns:
        None where transformers has no such model, such as for an encoder: names then stand as stored.
    """
    return _names(_Key(config, trust_remote_code))


def parameter_names(
    config: PretrainedConfig, stored: Iterable[str], *, trust_remote_code: bool
) -> dict[str, str]:
    """Return stored tensor → the parameter that it is, of those that are one as they stand."""
    names = model_names(config, trust_remote_code=trust_remote_code)
    found = {} if names is None else {name: names.parameter(name) for name in stored}
    return {name: own for name, own in found.items() if own is not None}


class _Key:
    """A configuration as a key: equal where it describes the same model."""

    def __init__(self, config: PretrainedConfig, trust_remote_code: bool) -> None:
        self.config, self.trust_remote_code = config, trust_remote_code
        told = copy.copy(config)
        if not trust_remote_code:
            told.name_or_path = ""  # else it says where the code is
        text: str = told.to_json_string(use_diff=False)
        self._key = (type(config), text, told.name_or_path, trust_remote_code)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._key == other._key


@lru_cache(maxsize=16)
def _names(key: _Key) -> ModelNames | None:
    try:
        with torch.device("meta"):
            model: Any = auto_class(key.config).from_config(
                copy.deepcopy(key.config), trust_remote_code=key.trust_remote_code
            )
        transforms = get_model_conversion_mapping(model)
    except UNKNOWN:
        return None
    state = {name: tensor.is_floating_point() for name, tensor in model.state_dict().items()}
    buffers = {name for name, _ in model.named_buffers()}
    patterns = [*(model._keys_to_ignore_on_load_unexpected or ()), *BUFFERS]
    patterns += [rf"^{re.escape(name)}$" for name in sorted(buffers - set(state))]
    if any(name.endswith("position_ids") for name in buffers):
        patterns.append(r"(^|\.)position_ids$")
    optional = [*(model._keys_to_ignore_on_load_missing or ())]
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    needed = {
        name
        for name, _ in model.named_parameters(remove_duplicate=False)
        if name not in tied and not any(re.search(pattern, name) for pattern in optional)
    }
    architectures = key.config.architectures or [type(model).__name__]
    return ModelNames(
        prefix=model.base_model_prefix,
        state=state,
        needed=frozenset(needed),
        ignored=re.compile("|".join(f"({pattern})" for pattern in patterns)),
        renamings=tuple(one for one in transforms if isinstance(one, WeightRenaming)),
        converters=tuple(one for one in transforms if isinstance(one, WeightConverter)),
        own_class=architectures[0] == type(model).__name__,
        parts=parts_of(model),
    )
