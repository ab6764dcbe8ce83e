"""A recipe over real models → the list of output tensors, each with its inputs and parameters."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from transformers import PretrainedConfig

from evomerge.candidate import Recipe, Slice, Source
from evomerge.errors import RecipeError
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.layout import Layout
from evomerge.merge.methods import Method, method
from evomerge.merge.methods.method import Values
from evomerge.merge.parameters import resolve


@dataclass(frozen=True)
class TensorPlan:
    """How one output tensor comes to be.

    Attributes:
        name: Of the output tensor.
        models: The inputs, in order.
        tensors: Per input the name of its tensor.
        base: Which input is the base; None where the method knows none.
        shared: Parameters that hold for all inputs.
        own: Parameters per input.
        slice: Which of the recipe's slices it is made by; 0 for a recipe without slices.
    """

    name: str
    models: tuple[str, ...]
    tensors: tuple[str, ...]
    base: int | None
    shared: Values
    own: tuple[Values, ...]
    slice: int = 0


@dataclass(frozen=True)
class Plan:
    """A merge, ready to be computed.

    Attributes:
        method: The merge method.
        config: Configuration of the merged model; its dtype is the file's.
        tensors: In the order embeddings, layers, final norm and head.
    """

    method: Method
    config: PretrainedConfig
    tensors: tuple[TensorPlan, ...]


def plan_merge(recipe: Recipe, checkpoints: Mapping[str, Checkpoint]) -> Plan:
    """Plan a checked recipe.

    Args:
        recipe: It passed `check_recipe`.
        checkpoints: Every model that it names.

    Raises:
        RecipeError: A layer range exceeds a model, or a required parameter lacks a value for a tensor.
        ModelError: A model's layers cannot be told from its tensors' names.
    """
    chosen = method(recipe.method)
    first = checkpoints[recipe.model_names()[0]]
    layout = Layout.of(first)
    slices = _slices(recipe, layout.num_layers)
    _check_ranges(slices, layout)
    return Plan(
        method=chosen,
        config=_config(first.config, slices, layout.num_layers),
        tensors=tuple(_tensors(recipe, chosen, slices, layout)),
    )


def _slices(recipe: Recipe, num_layers: int) -> tuple[Slice, ...]:
    """Every recipe as slices with explicit ranges; a base model that is not listed comes last."""
    whole = (0, num_layers)
    if recipe.slices:
        return tuple(
            Slice(
                tuple(_ranged(source, whole) for source in piece.sources),
                piece.base_model,
                piece.parameters,
            )
            for piece in recipe.slices
        )
    sources = [_ranged(source, whole) for source in recipe.models]
    if recipe.base_model is not None and all(s.model != recipe.base_model for s in sources):
        sources.append(Source(recipe.base_model, whole))
    return (Slice(tuple(sources)),)


def _ranged(source: Source, whole: tuple[int, int]) -> Source:
    if source.layer_range is not None:
        return source
    return Source(source.model, whole, source.parameters)


def _range(source: Source) -> tuple[int, int]:
    assert source.layer_range is not None  # _slices gave every source one
    return source.layer_range


def _check_ranges(slices: Sequence[Slice], layout: Layout) -> None:
    if not any(stop - start for piece in slices for start, stop in map(_range, piece.sources)):
        raise RecipeError("found no layer in any slice, expected one at least", field="slices")
    for number, piece in enumerate(slices):
        lengths = {stop - start for start, stop in map(_range, piece.sources)}
        if len(lengths) > 1:
            raise RecipeError(
                f"the layer ranges of a slice must be equally long, found {sorted(lengths)} layers",
                field=f"slices.{number}.sources",
            )
        for position, source in enumerate(piece.sources):
            start, stop = _range(source)
            if stop > layout.num_layers:
                raise RecipeError(
                    f"found [{start}, {stop}], {source.model} has {layout.num_layers} layers",
                    field=f"slices.{number}.sources.{position}.layer_range",
                )


def _config(base: PretrainedConfig, slices: Sequence[Slice], num_layers: int) -> PretrainedConfig:
    """The base's configuration for the new stack; lists with an entry a layer follow the layers."""
    origin = [layer for piece in slices for layer in range(*_range(piece.sources[0]))]
    config = copy.deepcopy(base)
    if origin == list(range(num_layers)):
        return config
    text = config.get_text_config()
    per_layer = {
        key: [value[layer] for layer in origin]
        for key, value in vars(text).items()
        if isinstance(value, list)
        and len(value) == num_layers
        and key.lstrip("_") != "architectures"
    }
    text.num_hidden_layers = len(origin)
    for key, value in per_layer.items():
        setattr(text, key, value)
    return config


def _tensors(
    recipe: Recipe, chosen: Method, slices: Sequence[Slice], layout: Layout
) -> Iterator[TensorPlan]:
    for name in layout.first:
        yield _tensor(recipe, chosen, slices, 0, name, None, 0.0)
    out = 0
    for number, piece in enumerate(slices):
        starts = [_range(source)[0] for source in piece.sources]
        start, stop = _range(piece.sources[0])
        for step in range(stop - start):
            t = step / (stop - start - 1) if stop - start > 1 else 1.0
            for suffix in layout.layers[start + step]:
                names = tuple(layout.name(first + step, suffix) for first in starts)
                for first in starts:
                    if suffix not in layout.layers[first + step]:
                        raise RecipeError(
                            f"layer {start + step} has {suffix}, layer {first + step} has not; they "
                            "cannot be merged with each other",
                            field="slices",
                        )
                yield _tensor(recipe, chosen, slices, number, layout.name(out, suffix), names, t)
            out += 1
    for name in layout.last:
        yield _tensor(recipe, chosen, slices, len(slices) - 1, name, None, 0.0)


def _tensor(
    recipe: Recipe,
    chosen: Method,
    slices: Sequence[Slice],
    number: int,
    name: str,
    names: tuple[str, ...] | None,
    t: float,
) -> TensorPlan:
    piece = slices[number]
    models = tuple(source.model for source in piece.sources)
    tensors = names or (name,) * len(models)
    base = (piece.base_model or recipe.base_model) if chosen.uses_base else None
    wider = (piece.parameters, recipe.parameters)
    own = tuple(
        resolve(
            chosen,
            (source.parameters, *wider),
            tensor=tensor,
            t=t,
            per_source=True,
            model=source.model,
            required=source.model != base,
        )
        for source, tensor in zip(piece.sources, tensors, strict=True)
    )
    return TensorPlan(
        name=name,
        models=models,
        tensors=tensors,
        base=models.index(base) if base is not None else None,
        shared=resolve(chosen, wider, tensor=name, t=t, per_source=False),
        own=own,
        slice=number,
    )
