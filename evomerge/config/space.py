"""What is searched: methods, groups of layers and components, ranges of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from evomerge.config.faults import FieldError, MissingFieldError
from evomerge.config.settings import NonEmpty, Settings

Axis = Literal["expert", "layer", "component"]

_REMOVED = {
    "coarse": "give layers the number of groups to search",
    "mask_seed": "set search.seed, which also seeds the masks",
    "profile": "use a smaller number of layers",
}
"""Key of an earlier version → what to use instead."""


def _refuse_removed(data: object) -> object:
    for name in data if isinstance(data, dict) else ():
        if name in _REMOVED:
            message = f"{name} was removed: measured, it gained nothing; {_REMOVED[name]} instead"
            raise FieldError(message, name)
    return data


class Bounds(Settings):
    """A range of its own for one expert."""

    low: float
    """Smallest value; below 0 for signed weights."""
    high: float
    """Largest value."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"an empty range: low {self.low:g} is not below high {self.high:g}")
        return self


class Range(Bounds):
    """A searched number."""

    log: bool = False
    """Search its logarithm."""
    per: tuple[Axis, ...] = ("expert", "layer", "component")
    """Which of expert, layer (group) and component (group) it differs by; default all that apply."""
    sum: float | None = Field(default=None, gt=0)
    """Scale the experts' values in each group so that they add up to this (1: the simplex); equal shares
    where all are 0. The range must allow that sum. None: they are free."""
    experts: Mapping[str, Parameter] = Field(default_factory=dict)
    """Expert → a range of its own, or a fixed value."""

    _removed = model_validator(mode="before")(_refuse_removed)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.log and self.low <= 0:
            raise FieldError(f"a log range needs low above 0, found {self.low:g}", "low")
        if self.sum is not None and (self.low < 0 or "expert" not in self.per or self.experts):
            raise FieldError(
                "sum scales the experts' values: it needs low of at least 0, expert among per, and no "
                "ranges of single experts",
                "sum",
            )
        if self.experts and "expert" not in self.per:
            raise FieldError("ranges of single experts need expert among per", "experts")
        for name, own in self.experts.items():
            if self.log and isinstance(own, Bounds) and own.low <= 0:
                message = f"a log range needs low above 0, found {own.low:g} for expert {name}"
                raise FieldError(message, "experts", name, "low")
        return self


def _kind_of_parameter(value: object) -> str:
    return "range" if isinstance(value, Bounds | dict) else "value"


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"found {str(value).lower()}, expected a number or {{low, high}}")
    return value


Parameter = Annotated[
    Annotated[Bounds, Tag("range")]
    | Annotated[int | float, BeforeValidator(_number), Tag("value")],
    Discriminator(_kind_of_parameter),
]
"""What one expert may have of its own: a range or a fixed value."""

Searched = Annotated[
    Annotated[Range, Tag("range")] | Annotated[bool | int | float, Tag("value")],
    Discriminator(_kind_of_parameter),
]
"""A parameter of a method: a range is searched, a value is fixed."""

Combiner = Literal["router", "mix"]
Over = Literal["probabilities", "logits"]
Layers = Annotated[int, Field(ge=1)] | Literal["each"] | tuple[tuple[int, int], ...]


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


_Distinct = Annotated[
    tuple[NonEmpty, ...], Field(min_length=1, json_schema_extra={"uniqueItems": True})
]


AUTO = "auto"
AUTO_METHODS = ("task_arithmetic", "dare_linear", "breadcrumbs")
"""What `method: auto` searches: the best few of all that were measured (docs/reference/methods.md)."""
AUTO_PARAMETERS = {
    "weight": {"low": 0.0, "high": 1.2},
    "density": {"low": 0.2, "high": 1.0, "per": ["expert"]},
}
_OF_MERGES = ("method", "parameters")
_OF_OTHERS = ("members", "order", "repeats", "shared", "combiner", "over")


class SpaceSettings(Settings):
    """What is searched."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"kind": {"const": "merge"}, "method": {"not": {"const": AUTO}}}},
            "then": {"required": list(_OF_MERGES)},
        }
    )

    kind: NonEmpty = "merge"
    """Of the candidates: `merge` (averaged weights), `stack` (layers of several models), `mixture` (of
    experts) or `ensemble` (several models as one)."""
    spaces: SkipJsonSchema[tuple[SpaceSettings, ...]] = Field(default=(), repr=False)
    """Spaces that compete, and nothing else beside them: in the file a list in place of the mapping."""
    method: Annotated[
        Annotated[tuple[NonEmpty, ...], Field(min_length=1)],
        BeforeValidator(_as_tuple, json_schema_input_type=NonEmpty | _Distinct),
    ] = ()
    """A merge method; or several, then the method is searched too; `auto`: the best few of those measured,
    with ranges of their own where `parameters` has none."""
    layers: Layers = 1
    """Number of contiguous groups of layers; or `each`, the default of stacks; or explicit [start, stop)
    pairs."""
    components: tuple[NonEmpty, ...] = ()
    """Substrings of tensor names, each a group of its own; the others form `rest`."""
    parameters: Mapping[str, Searched] = Field(default_factory=dict)
    """Parameter of the method → a range (searched) or a value (fixed)."""
    subsets: bool = False
    """Search also which experts take part: one that does not has weight 0, and one at least does."""
    members: tuple[NonEmpty, ...] = Field(default=(), json_schema_extra={"uniqueItems": True})
    """Names of experts, `base`, and `best`, the best merge (of routers the best naive one); default all
    experts, of ensembles all of these."""
    order: Literal["members", "layers"] = "layers"
    """Of stacks: a pass goes through all layers of a member and then of the next, or layer by layer."""
    repeats: int = Field(default=1, ge=1)
    """Of stacks: how many passes a path makes through the layers."""
    shared: NonEmpty = "best"
    """Of mixtures: what everything but the feed-forward blocks comes from: `best`, the best merge; `base`;
    `average`; or a merge method, whose parameters then stand among `parameters`."""
    combiner: Combiner = "router"
    """Of ensembles: who answers is predicted from the prompt, or all do, their distributions mixed."""
    over: Over = "probabilities"
    """Of mixed ensembles: what is averaged."""

    _removed = model_validator(mode="before")(_refuse_removed)

    @model_validator(mode="before")
    @classmethod
    def _chosen(cls, data: Any) -> Any:  # noqa: ANN401 - whatever stands in the file
        """Put the methods in the place of `auto`, with a range for each number that has none."""
        if not isinstance(data, dict) or data.get("method") not in (AUTO, [AUTO]):
            return data
        given = data.get("parameters") or {}
        if not isinstance(given, Mapping):
            return data
        return {**data, "method": AUTO_METHODS, "parameters": {**AUTO_PARAMETERS, **given}}

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for name in _OF_MERGES if self.kind == "merge" else ():
            if name not in self.model_fields_set:
                raise MissingFieldError(name)
        return self

    @property
    def parts(self) -> tuple[SpaceSettings, ...]:
        """The spaces that compete, or the only one."""
        return self.spaces or (self,)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods of all parts, each once."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.method))

    @property
    def names(self) -> tuple[str, ...]:
        """What each part is called: its kind, numbered where there are several of one."""
        kinds = [part.kind for part in self.parts]
        return tuple(
            kind if kinds.count(kind) == 1 else f"{kind}{kinds[: place + 1].count(kind)}"
            for place, kind in enumerate(kinds)
        )

    def field(self, place: int) -> tuple[str | int, ...]:
        """Return where one of the parts stands in the campaign's file."""
        return ("space", place) if self.spaces else ("space",)

    @model_serializer(mode="wrap")
    def _as_given(self, write: SerializerFunctionWrapHandler) -> Any:  # noqa: ANN401 - a dict or list
        """Of merges all that they take is written, of another kind only what was given."""
        found: Any = write(self)
        if self.spaces:  # written twice: a type within itself has its serializer inside and outside
            return found if isinstance(found, list) else found["spaces"]
        taken = found.keys() - set(_OF_OTHERS) if self.kind == "merge" else {"kind"}
        given = (taken | self.model_fields_set) - {"spaces"}
        return {name: value for name, value in found.items() if name in given}

    @field_validator("method", "members")
    @classmethod
    def _each_once(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for place, name in enumerate(names):
            if name in names[:place]:
                what = str(info.field_name).removesuffix("s")
                raise FieldError(f'{what} "{name}" is given twice', place)
        return names

    @field_validator("components")
    @classmethod
    def _each_reached(cls, components: tuple[str, ...]) -> tuple[str, ...]:
        for place, text in enumerate(components):
            if text == "rest":
                raise FieldError('"rest" is the group of what matches none; leave it out', place)
            earlier = next((one for one in components[:place] if one in text), None)
            if earlier is not None:
                raise FieldError(
                    f'"{text}" is never reached: its tensors belong to "{earlier}", which stands before '
                    "it; put the longer text first"
                    if earlier != text
                    else f'"{text}" is given twice',
                    place,
                )
        return components


SEVERAL = "several"
"""Kind of a list of spaces; no candidate is of it."""


def _as_several(value: object) -> object:
    if not isinstance(value, list | tuple):
        return value
    if not value:
        raise ValueError("found [], expected a mapping, or a list of them")
    return value[0] if len(value) == 1 else {"kind": SEVERAL, "spaces": value}


Spaces = Annotated[
    SpaceSettings,
    BeforeValidator(
        _as_several,
        json_schema_input_type=SpaceSettings
        | Annotated[tuple[SpaceSettings, ...], Field(min_length=1)],
    ),
]
"""What is searched: a space, or a list of spaces that compete."""

Range.model_rebuild()
