"""A YAML document in mergekit's form → a Recipe; pydantic checks the form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainValidator, ValidationError

from evomerge.candidate.coefficients import Coefficients
from evomerge.candidate.forms import (
    Dtype,
    Form,
    FormError,
    Model,
    Text,
    first_fault,
    model_name,
    only,
    read_tables,
    refuse,
)
from evomerge.candidate.recipe import (
    Conditional,
    Recipe,
    Setting,
    Slice,
    Source,
    Vocabulary,
    split_places,
    with_places,
)
from evomerge.candidate.tokens import token_source
from evomerge.errors import RecipeError
from evomerge.yaml_file import Document, Location

_SETTING = "a value, a list of values (a gradient over the layers) or a list of {filter, value}"


def _layer_range(value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        refuse(value, "a list")
    if len(value) != 2 or any(type(end) is not int for end in value):
        raise FormError(f"found {value}, expected two whole numbers, [start, stop)")
    start, stop = value
    if not 0 <= start <= stop:
        raise FormError(
            f"found [{start}, {stop}], expected 0 <= start <= stop (start = stop: no layer, only what "
            "stands before or after the layers)"
        )
    return start, stop


def _parameters(value: object) -> dict[str, Setting]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        refuse(value, "a mapping")
    return {name: _setting(item, name) for name, item in value.items()}


def _setting(value: object, *where: str | int) -> Setting:
    if isinstance(value, Mapping):  # mergekit takes one conditional without its list
        return (_conditional(value, *where),)
    if isinstance(value, list):
        if any(isinstance(item, Mapping) for item in value):
            return tuple(_conditional(item, *where, place) for place, item in enumerate(value))
        return tuple(_scalar(item, *where, place) for place, item in enumerate(value))
    return _scalar(value, *where)


def _conditional(value: object, *where: str | int) -> Conditional:
    if not isinstance(value, Mapping):
        refuse(value, "a mapping", *where)
    only(value, ("value", "filter"), *where)
    if "value" not in value:
        raise FormError("value is missing", *where)
    text, given = value.get("filter"), value["value"]
    if text is not None and not isinstance(text, str):
        refuse(text, "text", *where, "filter")
    if isinstance(given, list):
        points = (_scalar(item, *where, "value", place) for place, item in enumerate(given))
        return Conditional(tuple(points), text)
    return Conditional(_scalar(given, *where, "value"), text)


def _scalar(value: object, *where: str | int) -> bool | int | float | str:
    if not isinstance(value, bool | int | float | str):
        refuse(value, _SETTING, *where)
    if isinstance(value, float) and not math.isfinite(value):
        raise FormError(f"found {value}, expected a finite number", *where)
    return value


_Parameters = Annotated[dict[str, Any], PlainValidator(_parameters)]


def _or_empty(value: object) -> object:
    return value or []


class _Source(Form):
    model: Model
    layer_range: Annotated[Any, PlainValidator(_layer_range)] = None
    parameters: _Parameters = Field(default_factory=dict)

    def value(self) -> Source:
        return Source(self.model, self.layer_range, self.parameters)


class _Slice(Form):
    sources: list[_Source] = Field(default_factory=list)
    base_model: Model | None = None
    residual_weight: Any = None  # mergekit reads it and never uses it
    parameters: _Parameters = Field(default_factory=dict)

    def value(self) -> Slice:
        sources = tuple(source.value() for source in self.sources)
        return Slice(sources, self.base_model, self.parameters)


class _Module(Form):
    models: Annotated[list[_Source], BeforeValidator(_or_empty)] = Field(default_factory=list)
    slices: Annotated[list[_Slice], BeforeValidator(_or_empty)] = Field(default_factory=list)
    parameters: _Parameters = Field(default_factory=dict)


class _Tokenizer(Form):
    source: Model = "union"
    tokens: dict[str, Any] | None = None
    pad_to_multiple_of: int | None = Field(default=None, ge=1)


class _File(_Module):
    merge_method: Text
    base_model: Model | None = None
    modules: dict[str, _Module] | None = None
    dtype: Dtype = None
    out_dtype: Dtype = None
    tokenizer_source: Model | None = None
    tokenizer: _Tokenizer | None = None
    chat_template: str | None = None
    seed: int = Field(default=0, ge=0)
    coefficients: Text | None = None
    statistics: Text | None = None


def read_recipe(document: Document) -> Recipe:
    """Read a recipe from a document.

    Raises:
        RecipeError: A key or a value is none of mergekit's; it names file, line and field.
    """
    try:
        file = _File.model_validate(document.data)
    except ValidationError as error:
        raise first_fault(document, error, _known, {"merge_method": "ties"}) from None
    where, module, parameters = _inputs(document, file)
    for number, piece in enumerate(module.slices):
        if not piece.sources:
            place = (*where, "slices", number)
            raise document.error(RecipeError, place, "sources is missing or empty")
    return Recipe(
        method=file.merge_method,
        models=tuple(source.value() for source in module.models),
        slices=tuple(piece.value() for piece in module.slices),
        base_model=file.base_model,
        parameters=parameters,
        dtype=file.dtype,
        out_dtype=file.out_dtype,
        vocabulary=_vocabulary(document, file),
        chat_template=file.chat_template,
        seed=file.seed,
        coefficients=None
        if file.coefficients is None
        else read_tables(document, "coefficients", file.coefficients, Coefficients),
        statistics=None if file.statistics is None else _statistics(document, file.statistics),
    )


def _statistics(document: Document, name: str) -> str:
    name, places = split_places(name)
    path = Path(name) if document.path is None else document.path.parent.resolve() / name
    if document.path is not None and not path.is_file():
        fault = "no such file; the recipe cannot be merged without it, copy it along"
        raise document.error(RecipeError, ("statistics",), f"{path}: {fault}")
    return with_places(str(path), places)


def _known(location: Location) -> tuple[str, ...]:
    """Return the keys that stand beside one that is unknown."""
    names = [part for part in location[:-1] if isinstance(part, str)]
    forms: dict[str, type[Form]] = {
        "models": _Source,
        "sources": _Source,
        "slices": _Slice,
        "tokenizer": _Tokenizer,
    }
    known = forms.get(names[-1], _Module) if names else _File
    return tuple(known.model_fields)


def _inputs(document: Document, file: _File) -> tuple[Location, _Module, dict[str, Setting]]:
    """Return where models and slices stand, and the parameters of the widest scope."""
    given = [key for key in ("models", "slices", "modules") if getattr(file, key)]
    if len(given) != 1:
        found = " and ".join(given) if given else "none of them"
        raise document.error(
            RecipeError, given[:1], f"expected one of models, slices and modules, found {found}"
        )
    if not file.modules:
        return (), file, file.parameters
    if len(file.modules) != 1:
        names = ", ".join(file.modules)
        raise document.error(
            RecipeError,
            ("modules",),
            f"found {len(file.modules)} modules ({names}); models of one module only can be merged",
        )
    ((name, module),) = file.modules.items()
    where = ("modules", name)
    if bool(module.models) == bool(module.slices):
        raise document.error(RecipeError, where, "expected either models or slices")
    # Module scope stands between slice and global scope; with one module both are one.
    wider = file.parameters
    own = {key: _joined(value, wider.get(key)) for key, value in module.parameters.items()}
    return where, module, {**wider, **own}


def _joined(own: Setting, wider: Setting | None) -> Setting:
    """One setting for two scopes: a filter list that matches nothing falls through to the wider one."""
    filters = _filters(own)
    if wider is None or not filters:
        return own
    if isinstance(wider, tuple):
        scalars = tuple(item for item in wider if not isinstance(item, Conditional))
        return filters + (_filters(wider) or (Conditional(scalars),))
    return (*filters, Conditional(wider))


def _filters(setting: Setting) -> tuple[Conditional, ...]:
    if not isinstance(setting, tuple):
        return ()
    return tuple(item for item in setting if isinstance(item, Conditional))


def _vocabulary(document: Document, file: _File) -> Vocabulary | None:
    if file.tokenizer is None:
        return None if file.tokenizer_source is None else Vocabulary(file.tokenizer_source)
    if file.tokenizer_source is not None:
        raise document.error(
            RecipeError, ("tokenizer",), "give either tokenizer or tokenizer_source, not both"
        )
    tokens: dict[str, object] = {}
    for token, item in (file.tokenizer.tokens or {}).items():
        place = ("tokenizer", "tokens", token)
        try:
            tokens[token] = _named(item)
            token_source(tokens[token], token)
        except FormError as error:
            raise document.error(RecipeError, (*place, *error.location), error.message) from None
        except RecipeError as error:
            raise document.error(RecipeError, place, error.message) from None
    return Vocabulary(file.tokenizer.source, tokens, file.tokenizer.pad_to_multiple_of)


def _named(item: object) -> object:
    """An override of a token as it stands in the file, but for models, which become names."""
    if not isinstance(item, Mapping) or not isinstance(item.get("source"), Mapping):
        return item
    source = dict(item["source"])
    if "kind" not in source:
        return {**item, "source": model_name(source)}
    if isinstance(source.get("model"), Mapping):
        source["model"] = model_name(source["model"])
    return {**item, "source": source}
