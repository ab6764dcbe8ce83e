"""Where a tensor stands in a model, read from the tensors' names and the config: no list of architectures."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from transformers import PretrainedConfig

from evomerge.errors import ModelError, RecipeError
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.family import merged_names

NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
FIRST = re.compile(r"embed|(^|\.)(wte|wpe|tok_embeddings)(\.|$)")
OF_NO_LAYER = re.compile(r"architectures$|_token_id$")
NOT_FIRST = re.compile(r"embed_out|unembed|(^|\.)(lm_head|output)(\.|$)")


@dataclass(frozen=True)
class Layout:
    """A stack of layers, and what stands before and after it.

    Attributes:
        prefix: What stands before a layer's number, such as `model.layers.`.
        num_layers: Height of the stack.
        first: Tensors outside the layers that are read before them: the embeddings, and of a model that sees
            or hears besides all that its language model does not have.
        layers: Per layer the tensors' names without prefix and number, such as `mlp.up_proj.weight`.
        last: The other tensors outside the layers: final norm and lm_head.
    """

    prefix: str
    num_layers: int
    first: tuple[str, ...]
    layers: tuple[tuple[str, ...], ...]
    last: tuple[str, ...]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Layout:
        """Read the layout of a model, once.

        Raises:
            ModelError: The names show no stack of as many layers as the config says.
        """
        if checkpoint not in _READ:
            _READ[checkpoint] = cls._read(checkpoint)
        return _READ[checkpoint]

    @classmethod
    def _read(cls, checkpoint: Checkpoint) -> Layout:
        names = merged_names(checkpoint)
        count = getattr(checkpoint.config.get_text_config(), "num_hidden_layers", None)
        stacks: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        for name in names:
            number = NUMBER.search(name)
            if number:
                stack = stacks[name[: number.start()]]
                stack[int(number.group())].append(name[number.end() + 1 :])
        fitting = [one for one, stack in stacks.items() if set(stack) == set(range(count or 0))]
        if not count or not fitting:
            found = ", ".join(f"{prefix}* has {len(stack)}" for prefix, stack in stacks.items())
            raise ModelError(
                f"the config says {count} layers, the tensors' names show no such stack "
                f"({found or 'none'})",
                file=checkpoint.name,
            )
        embedding = checkpoint.vocabulary_tensors.embedding or ""

        def rank(stack: str) -> tuple[bool, int]:  # a tower may have as many layers
            tensors = sum(len(layer) for layer in stacks[stack].values())
            return embedding.startswith(_above(stack)), tensors

        prefix = max(fitting, key=rank)
        outside = [name for name in names if not _inside(name, prefix)]
        language = _above(prefix) if is_composite(checkpoint.config) else ""
        heads = checkpoint.vocabulary_tensors.heads
        first = [
            name
            for name in outside
            if (_reads_first(name) if name.startswith(language) else name not in heads)
        ]
        return cls(
            prefix=prefix,
            num_layers=count,
            first=tuple(first),
            layers=tuple(tuple(stacks[prefix][index]) for index in range(count)),
            last=tuple(name for name in outside if name not in first),
        )

    @property
    def language(self) -> str:
        """What the names of its language model begin with, the output head apart, such as `model.`."""
        return _above(self.prefix)

    def layer_of(self, name: str) -> int | None:
        """Return the number of the layer that a tensor belongs to; None outside the layers."""
        if not _inside(name, self.prefix):
            return None
        number = NUMBER.match(name, len(self.prefix))
        return None if number is None else int(number.group())

    def name(self, layer: int, suffix: str) -> str:
        """Return the full name of a layer's tensor."""
        return f"{self.prefix}{layer}.{suffix}"


_READ: WeakKeyDictionary[Checkpoint, Layout] = WeakKeyDictionary()


def is_composite(config: PretrainedConfig) -> bool:
    """Tell whether a model sees or hears besides: whether its language model is a part of it."""
    return config.get_text_config() is not config


def restack(
    config: PretrainedConfig,
    origin: Sequence[int],
    num_layers: int,
    sources: Sequence[PretrainedConfig] | None = None,
) -> None:
    """Fit a configuration to another stack of layers; lists with an entry a layer follow the layers.

    Args:
        config: Changed in place.
        origin: Which layer, of its own or of `sources`, stands at each place of the new stack.
        num_layers: How many it has.
        sources: Whose layer it is at each place; None: all are its own.

    Raises:
        RecipeError: A source's configuration lacks a list that this one has.
    """
    if sources is None and list(origin) == list(range(num_layers)):
        return
    text = config.get_text_config()
    per_layer = {
        key: [
            _entry(key, value, layer, source)
            for layer, source in zip(origin, sources or [config] * len(origin), strict=True)
        ]
        for key, value in vars(text).items()
        if isinstance(value, list) and len(value) == num_layers and not OF_NO_LAYER.search(key)
    }
    text.num_hidden_layers = len(origin)
    for key, value in per_layer.items():
        setattr(text, key, value)


def _entry(key: str, value: list[object], layer: int, source: PretrainedConfig) -> object:
    """Return a layer's entry: of its own model's list, or of `value` where that model has none."""
    text = source.get_text_config()
    own = getattr(text, key, None)
    if isinstance(own, list) and len(own) == text.num_hidden_layers:
        return own[layer]
    if layer >= len(value):
        name = source.name_or_path or "a model"
        raise RecipeError(f"the config of {name} lacks {key} for layer {layer}", field="slices")
    return value[layer]


def _above(stack: str) -> str:
    return stack[: stack.rstrip(".").rfind(".") + 1]


def _inside(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and NUMBER.match(name, len(prefix)) is not None


def _reads_first(name: str) -> bool:
    return FIRST.search(name) is not None and NOT_FIRST.search(name) is None
