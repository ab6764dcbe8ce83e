"""A merge, or a recipe file, over real models → output tensors, each with its inputs and parameters."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import PretrainedConfig

from evomerge.candidate import Coefficients, Merge, Recipe, Slice, Source, Vocabulary
from evomerge.candidate.merge import at, component_of
from evomerge.candidate.tables import Array
from evomerge.errors import RecipeError
from evomerge.merge.checkpoint import Checkpoint
from evomerge.merge.family import layer_shapes
from evomerge.merge.layout import Layout, restack
from evomerge.merge.methods import Method, method
from evomerge.merge.methods.method import Parameter, Value, Values
from evomerge.merge.parameters import checked, completed, resolve
from evomerge.merge.validation import check_recipe

Place = tuple[int, int]
"""Group of layers and component of a tensor: by these the numbers of a `Merge` are found."""


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
        place: Where its numbers stand; of a recipe its slice, and 0.
        ancestor: Which input is the base model, also where the method takes it as one of the others.
        added: Per input what is added to its weight, `[rows]` or `[1]`; None: nothing. Empty: to none.
    """

    name: str
    models: tuple[str, ...]
    tensors: tuple[str, ...]
    base: int | None
    shared: Values
    own: tuple[Values, ...]
    place: Place = (0, 0)
    ancestor: str | None = None
    added: tuple[Array | None, ...] = ()


@dataclass(frozen=True)
class MergePlan:
    """A merge, ready to be computed.

    Attributes:
        method: The merge method.
        config: Configuration of the merged model; its dtype is the file's.
        tensors: In the order embeddings, layers, final norm and head.
        models: All models, the base first; random masks are keyed by the place in this order.
        experts: Of these all but the base; statistics are by the place in this order.
        seed: Keys the random masks.
        dtype: Of the result; None: the base's own.
        vocabulary: How vocabularies are matched; None: the models have one.
        chat_template: A template, or the name of one; None: the tokenizer's own.
        statistics: File of statistics of the experts' activations; None: none.
    """

    method: Method
    config: PretrainedConfig
    tensors: tuple[TensorPlan, ...]
    models: tuple[str, ...]
    experts: tuple[str, ...] = ()
    seed: int = 0
    dtype: str | None = None
    vocabulary: Vocabulary | None = None
    chat_template: str | None = None
    statistics: str | None = None


def plan_merge(source: Merge | Recipe, checkpoints: Mapping[str, Checkpoint]) -> MergePlan:
    """Plan a merge.

    Args:
        source: What to merge.
        checkpoints: Every model that it names.

    Raises:
        RecipeError: A value is wrong, a layer range exceeds a model, or a required parameter lacks a value
            for a tensor.
        ModelError: A model's layers cannot be told from its tensors' names.
    """
    chosen = method(source.method)
    if isinstance(source, Recipe):
        check_recipe(source)
    models = source.model_names()
    first = checkpoints[models[0]]
    layout = Layout.of(first)  # that of the result, but for the number of layers
    config = copy.deepcopy(first.config)
    chat_template = None
    dtype = source.dtype
    tensors: Iterable[TensorPlan]
    if isinstance(source, Merge):
        tensors = _merge_tensors(source, chosen, layout)
    else:
        layouts = {name: Layout.of(checkpoints[name]) for name in models}
        slices = _slices(source, layouts)
        _check_ranges(slices, layouts)
        if source.slices:
            origin: list[int] = []
            configs: list[PretrainedConfig] = []
            for lead in (_lead(piece, models[0]) for piece in slices):
                origin += range(*_range(lead))
                configs += [checkpoints[lead.model].config] * (len(origin) - len(configs))
            restack(config, origin, layout.num_layers, configs)
        tensors = _recipe_tensors(source, chosen, slices, checkpoints)
        dtype = source.out_dtype or dtype
        chat_template = source.chat_template
    if source.coefficients is not None:
        tensors = _with_additions(tuple(tensors), source.coefficients, source.experts, chosen)
    pieces = tuple(tensors)
    if source.statistics is None:
        _check_reads(chosen, pieces)
    return MergePlan(
        method=chosen,
        config=config,
        tensors=pieces,
        models=models,
        experts=source.experts,
        seed=source.seed,
        dtype=dtype,
        vocabulary=source.vocabulary,
        chat_template=chat_template,
        statistics=source.statistics,
    )


def _check_reads(chosen: Method, tensors: Sequence[TensorPlan]) -> None:
    """Refuse a method that reads statistics where there are none."""
    for name, spec in chosen.parameters.items():
        if spec.reads is not None and any(piece.shared.get(name) for piece in tensors):
            raise RecipeError(
                f"{name} of {chosen.name} reads statistics of the experts' activations; name their file "
                "(statistics: FILE.safetensors)",
                field="parameters",
            )


def _with_additions(
    tensors: Sequence[TensorPlan],
    coefficients: Coefficients,
    experts: Sequence[str],
    chosen: Method,
) -> Iterator[TensorPlan]:
    """Give each tensor what is added to its weights."""
    if not chosen.rows:
        raise RecipeError(
            f"{chosen.name} takes no weights by tensor or row; leave the coefficients out, or choose "
            "another method",
            field="coefficients",
        )
    unknown = sorted(coefficients.tables.keys() - {piece.name for piece in tensors})
    if unknown:
        raise RecipeError(
            f"found coefficients of {unknown[0]}, which is not a tensor of the merged model",
            field="coefficients",
        )
    for piece in tensors:
        table = coefficients.tables.get(piece.name)
        if table is None:
            yield piece
            continue
        if len(table) != len(experts):
            raise RecipeError(
                f"{piece.name}: found coefficients of {len(table)} experts, the recipe has "
                f"{len(experts)}",
                field="coefficients",
            )
        if not np.isfinite(table).all():
            raise RecipeError(
                f"{piece.name}: found NaN or infinity, expected finite numbers",
                field="coefficients",
            )
        own = dict(zip(experts, table, strict=True))
        yield replace(piece, added=tuple(map(own.get, piece.models)))


def _merge_tensors(merge: Merge, chosen: Method, layout: Layout) -> Iterator[TensorPlan]:
    """Plan a merge: a tensor has the numbers of its layer's group and of its component."""
    groups = merge.groups or ((0, layout.num_layers),)
    if groups[-1][1] != layout.num_layers:
        raise RecipeError(
            f"the groups end at layer {groups[-1][1]}, the models have {layout.num_layers} layers"
        )
    inputs = merge.inputs()
    ancestor = merge.base if merge.base in inputs else None
    base = inputs.index(ancestor) if ancestor is not None and chosen.uses_base else None
    known: dict[Place, tuple[Values, tuple[Values, ...]]] = {}

    def planned(name: str, group: int) -> TensorPlan:
        place = (group, component_of(merge.components, name))
        if place not in known:
            own = tuple(_own(merge, chosen, place, m, i == base) for i, m in enumerate(inputs))
            known[place] = _shared(merge, chosen, place), own
        shared, own = known[place]
        return TensorPlan(name, inputs, (name,) * len(inputs), base, shared, own, place, ancestor)

    for name in layout.first:
        yield planned(name, 0)
    for group, (start, stop) in enumerate(groups):
        for layer in range(start, stop):
            for suffix in layout.layers[layer]:
                yield planned(layout.name(layer, suffix), group)
    for name in layout.last:
        yield planned(name, len(groups) - 1)


def _own(merge: Merge, chosen: Method, place: Place, model: str, is_base: bool) -> Values:
    """Return the parameters of one input; the base of task vectors has none that it needs."""
    group, component = place

    def find(name: str, spec: Parameter) -> Value | None:
        if name in merge.own and not is_base:
            row = at(at(merge.own[name], group), component)
            return checked(row[merge.experts.index(model)], spec)
        return checked(merge.fixed[name], spec) if name in merge.fixed else None

    return completed(chosen, find, per_source=True, required=not is_base, of=model)


def _shared(merge: Merge, chosen: Method, place: Place) -> Values:
    group, component = place

    def find(name: str, spec: Parameter) -> Value | None:
        if name in merge.shared:
            return checked(at(at(merge.shared[name], group), component), spec)
        return checked(merge.fixed[name], spec) if name in merge.fixed else None

    return completed(chosen, find, per_source=False, of="all models")


def _slices(recipe: Recipe, layouts: Mapping[str, Layout]) -> tuple[Slice, ...]:
    """Every recipe as slices with explicit ranges; a base model that is not listed comes last."""

    def ranged(source: Source) -> Source:
        whole = (0, layouts[source.model].num_layers)
        return Source(source.model, source.layer_range or whole, source.parameters)

    if recipe.slices:
        return tuple(
            Slice(tuple(map(ranged, piece.sources)), piece.base_model, piece.parameters)
            for piece in recipe.slices
        )
    sources = list(map(ranged, recipe.models))
    if recipe.base_model is not None and all(s.model != recipe.base_model for s in sources):
        sources.append(ranged(Source(recipe.base_model)))
    if len({source.layer_range for source in sources}) > 1:
        found = ", ".join(f"{name} has {one.num_layers} layers" for name, one in layouts.items())
        raise RecipeError(
            f"models of unlike depth can be merged in slices only: {found}", field="models"
        )
    return (Slice(tuple(sources)),)


def _range(source: Source) -> tuple[int, int]:
    assert source.layer_range is not None  # _slices gave every source one
    return source.layer_range


def _lead(piece: Slice, first: str) -> Source:
    """The source whose config tells a slice's layers: the first model where it gives the same layers."""
    lead = piece.sources[0]
    same = (one for one in piece.sources if (one.model, _range(one)) == (first, _range(lead)))
    return next(same, lead)


def _check_ranges(slices: Sequence[Slice], layouts: Mapping[str, Layout]) -> None:
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
            height = layouts[source.model].num_layers
            if stop > height:
                raise RecipeError(
                    f"found [{start}, {stop}], {source.model} has {height} layers",
                    field=f"slices.{number}.sources.{position}.layer_range",
                )


def _recipe_tensors(
    recipe: Recipe,
    chosen: Method,
    slices: Sequence[Slice],
    checkpoints: Mapping[str, Checkpoint],
) -> Iterator[TensorPlan]:
    layout = Layout.of(checkpoints[recipe.model_names()[0]])
    planners = [_SlicePlanner(recipe, chosen, number, one) for number, one in enumerate(slices)]
    for name in layout.first:
        yield planners[0].tensor(name, None, 0.0)
    out = 0
    for piece, planner in zip(slices, planners, strict=True):
        inputs = [(checkpoints[source.model], _range(source)[0]) for source in piece.sources]
        layouts = [Layout.of(checkpoint) for checkpoint, _ in inputs]
        start, stop = _range(piece.sources[0])
        for step in range(stop - start):
            t = step / (stop - start - 1) if stop - start > 1 else 1.0
            layers = [(checkpoint, first + step) for checkpoint, first in inputs]
            for other in layers[1:]:
                _check_alike(layers[0], other)
            for suffix in layouts[0].layers[start + step]:
                places = zip(layouts, layers, strict=True)
                names = tuple(own.name(layer, suffix) for own, (_, layer) in places)
                yield planner.tensor(layout.name(out, suffix), names, t)
            out += 1
    for name in layout.last:
        yield planners[-1].tensor(name, None, 0.0)


def _check_alike(*layers: tuple[Checkpoint, int]) -> None:
    """Refuse to merge two layers that consist of unlike tensors."""
    shapes = [layer_shapes(one, Layout.of(one), layer) for one, layer in layers]
    if shapes[0] == shapes[1]:
        return
    places = [f"layer {layer} of {one.name}" for one, layer in layers]
    suffix = min(name for name, _ in shapes[0].items() ^ shapes[1].items())
    found = [f"{list(one[suffix])}" if suffix in one else "missing" for one in shapes]
    raise RecipeError(
        f"{suffix} is {found[0]} in {places[0]}, {found[1]} in {places[1]}; they cannot be merged with "
        "each other",
        field="slices",
    )


class _SlicePlanner:
    """Plans the tensors of one slice; its parameters are resolved once where no filter or gradient is."""

    def __init__(self, recipe: Recipe, chosen: Method, number: int, piece: Slice) -> None:
        self._chosen, self._number, self._piece = chosen, number, piece
        self._models = tuple(source.model for source in piece.sources)
        ancestor = piece.base_model or recipe.base_model
        self._ancestor = ancestor if ancestor in self._models else None
        self._base = ancestor if chosen.uses_base else None
        self._place = None if self._base is None else self._models.index(self._base)
        self._wider = (piece.parameters, recipe.parameters)
        scopes = [*self._wider, *(source.parameters for source in piece.sources)]
        self._uniform = not any(isinstance(v, tuple) for scope in scopes for v in scope.values())
        self._known: tuple[Values, tuple[Values, ...]] | None = None

    def tensor(self, name: str, names: tuple[str, ...] | None, t: float) -> TensorPlan:
        tensors = names or (name,) * len(self._models)
        found = self._known or self._resolved(name, tensors, t)
        self._known = found if self._uniform else None
        return TensorPlan(
            name=name,
            models=self._models,
            tensors=tensors,
            base=self._place,
            shared=found[0],
            own=found[1],
            place=(self._number, 0),
            ancestor=self._ancestor,
        )

    def _resolved(
        self, name: str, tensors: Sequence[str], t: float
    ) -> tuple[Values, tuple[Values, ...]]:
        own = tuple(
            resolve(
                self._chosen,
                (source.parameters, *self._wider),
                tensor=tensor,
                t=t,
                per_source=True,
                model=source.model,
                required=source.model != self._base,
            )
            for source, tensor in zip(self._piece.sources, tensors, strict=True)
        )
        return resolve(self._chosen, self._wider, tensor=name, t=t, per_source=False), own
