"""A YAML document in mergekit's form → a Recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from evomerge.candidate.fields import (
    described,
    dtype,
    mapping,
    only,
    optional_text,
    sequence,
    text,
    whole,
)
from evomerge.candidate.recipe import Conditional, Recipe, Setting, Slice, Source, Vocabulary
from evomerge.candidate.tokens import token_source
from evomerge.errors import RecipeError
from evomerge.yaml_file import Document, Location

TOP_LEVEL = (
    "merge_method",
    "base_model",
    "models",
    "slices",
    "modules",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
    "seed",
)


def read_recipe(document: Document) -> Recipe:
    """Read a recipe from a document.

    Raises:
        RecipeError: A key or a value is none of mergekit's; it names file, line and field.
    """
    data = document.data
    only(document, (), data, TOP_LEVEL)
    if "merge_method" not in data:
        raise document.error(RecipeError, (), "merge_method is missing, such as merge_method: ties")
    models, slices, parameters = _inputs(document)
    return Recipe(
        method=text(document, ("merge_method",), data["merge_method"]),
        models=models,
        slices=slices,
        base_model=_optional_model(document, ("base_model",), data.get("base_model")),
        parameters=parameters,
        dtype=dtype(document, ("dtype",), data.get("dtype")),
        out_dtype=dtype(document, ("out_dtype",), data.get("out_dtype")),
        vocabulary=_vocabulary(document),
        chat_template=optional_text(document, ("chat_template",), data.get("chat_template")),
        seed=whole(document, ("seed",), data.get("seed", 0)),
    )


def _inputs(
    document: Document,
) -> tuple[tuple[Source, ...], tuple[Slice, ...], dict[str, Setting]]:
    data = document.data
    given = [key for key in ("models", "slices", "modules") if data.get(key)]
    if len(given) != 1:
        found = " and ".join(given) if given else "none of them"
        raise document.error(
            RecipeError, given[:1], f"expected one of models, slices and modules, found {found}"
        )
    parameters = _parameters(document, ("parameters",), data.get("parameters"))
    if given == ["modules"]:
        where, module = _only_module(document)
        # Module scope stands between slice and global scope; with one module both are one.
        own = _parameters(document, (*where, "parameters"), module.get("parameters"))
        joined = {name: _joined(own[name], parameters.get(name)) for name in own}
        parameters = {**parameters, **joined}
    else:
        where, module = (), data
    models = module.get("models") or []
    slices = module.get("slices") or []
    return (
        tuple(
            _source(document, (*where, "models", index), item)
            for index, item in enumerate(sequence(document, (*where, "models"), models))
        ),
        tuple(
            _slice(document, (*where, "slices", index), item)
            for index, item in enumerate(sequence(document, (*where, "slices"), slices))
        ),
        parameters,
    )


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


def _only_module(document: Document) -> tuple[Location, dict[str, Any]]:
    modules = mapping(document, ("modules",), document.data["modules"])
    if len(modules) != 1:
        names = ", ".join(modules)
        raise document.error(
            RecipeError,
            ("modules",),
            f"found {len(modules)} modules ({names}); models of one module only can be merged",
        )
    name = next(iter(modules))
    where = ("modules", name)
    module = mapping(document, where, modules[name])
    only(document, where, module, ("models", "slices", "parameters"))
    if bool(module.get("models")) == bool(module.get("slices")):
        raise document.error(RecipeError, where, "expected either models or slices")
    return where, module


def _source(document: Document, where: Location, item: object) -> Source:
    data = mapping(document, where, item)
    only(document, where, data, ("model", "layer_range", "parameters"))
    if "model" not in data:
        raise document.error(RecipeError, where, "model is missing")
    return Source(
        model=_model(document, (*where, "model"), data["model"]),
        layer_range=_layer_range(document, (*where, "layer_range"), data.get("layer_range")),
        parameters=_parameters(document, (*where, "parameters"), data.get("parameters")),
    )


def _slice(document: Document, where: Location, item: object) -> Slice:
    data = mapping(document, where, item)
    # mergekit reads residual_weight and never uses it.
    only(document, where, data, ("sources", "base_model", "residual_weight", "parameters"))
    sources = sequence(document, (*where, "sources"), data.get("sources"))
    if not sources:
        raise document.error(RecipeError, where, "sources is missing or empty")
    return Slice(
        sources=tuple(
            _source(document, (*where, "sources", index), item)
            for index, item in enumerate(sources)
        ),
        base_model=_optional_model(document, (*where, "base_model"), data.get("base_model")),
        parameters=_parameters(document, (*where, "parameters"), data.get("parameters")),
    )


def _parameters(document: Document, where: Location, value: object) -> dict[str, Setting]:
    if value is None:
        return {}
    return {
        name: _setting(document, (*where, name), item)
        for name, item in mapping(document, where, value).items()
    }


def _setting(document: Document, where: Location, value: object) -> Setting:
    if isinstance(value, Mapping):  # mergekit takes one conditional without its list
        return (_conditional(document, where, value),)
    if isinstance(value, list):
        if any(isinstance(item, Mapping) for item in value):
            return tuple(
                _conditional(document, (*where, index), item) for index, item in enumerate(value)
            )
        return tuple(_scalar(document, (*where, index), item) for index, item in enumerate(value))
    return _scalar(document, where, value)


def _conditional(document: Document, where: Location, item: object) -> Conditional:
    data = mapping(document, where, item)
    only(document, where, data, ("value", "filter"))
    if "value" not in data:
        raise document.error(RecipeError, where, "value is missing")
    value = data["value"]
    within = (*where, "value")
    return Conditional(
        value=tuple(_scalar(document, (*within, i), entry) for i, entry in enumerate(value))
        if isinstance(value, list)
        else _scalar(document, within, value),
        filter=optional_text(document, (*where, "filter"), data.get("filter")),
    )


def _scalar(document: Document, where: Location, value: object) -> bool | int | float | str:
    if isinstance(value, float) and not math.isfinite(value):
        raise document.error(RecipeError, where, f"found {value}, expected a finite number")
    if isinstance(value, bool | int | float | str):
        return value
    raise document.error(
        RecipeError,
        where,
        f"found {described(value)}, expected a value, a list of values (a gradient over the layers) "
        "or a list of {filter, value}",
    )


def _layer_range(document: Document, where: Location, value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    pair = sequence(document, where, value)
    if len(pair) != 2 or any(isinstance(end, bool) or not isinstance(end, int) for end in pair):
        raise document.error(
            RecipeError, where, f"found {pair}, expected two whole numbers, [start, stop)"
        )
    start, stop = pair
    if not 0 <= start <= stop:
        raise document.error(
            RecipeError,
            where,
            f"found [{start}, {stop}], expected 0 <= start <= stop (start = stop: no layer, only what "
            "stands before or after the layers)",
        )
    return start, stop


def _vocabulary(document: Document) -> Vocabulary | None:
    data = document.data
    source, tokenizer = data.get("tokenizer_source"), data.get("tokenizer")
    if source is not None and tokenizer is not None:
        raise document.error(
            RecipeError, ("tokenizer",), "give either tokenizer or tokenizer_source, not both"
        )
    if source is not None:
        return Vocabulary(source=_model(document, ("tokenizer_source",), source))
    if tokenizer is None:
        return None
    where = ("tokenizer",)
    given = mapping(document, where, tokenizer)
    only(document, where, given, ("source", "tokens", "pad_to_multiple_of"))
    pad = given.get("pad_to_multiple_of")
    return Vocabulary(
        source=_model(document, (*where, "source"), given.get("source", "union")),
        tokens=_tokens(document, (*where, "tokens"), given.get("tokens") or {}),
        pad_to_multiple_of=None
        if pad is None
        else whole(document, (*where, "pad_to_multiple_of"), pad, low=1),
    )


def _tokens(document: Document, where: Location, value: object) -> dict[str, object]:
    """Overrides of single tokens, as they stand in the file but for models, which become names."""
    found = {
        token: _named(document, (*where, token), item)
        for token, item in mapping(document, where, value).items()
    }
    for token, item in found.items():
        try:
            token_source(item, token)
        except RecipeError as error:
            raise document.error(RecipeError, (*where, token), error.message) from None
    return found


def _named(document: Document, where: Location, item: object) -> object:
    if not isinstance(item, Mapping) or not isinstance(item.get("source"), Mapping):
        return item
    source, within = dict(item["source"]), (*where, "source")
    if "kind" not in source:
        return {**item, "source": _model(document, within, source)}
    if isinstance(source.get("model"), Mapping):
        source["model"] = _model(document, (*within, "model"), source["model"])
    return {**item, "source": source}


def _optional_model(document: Document, where: Location, value: object) -> str | None:
    return None if value is None else _model(document, where, value)


def _model(document: Document, where: Location, value: object) -> str:
    """A model's name; mergekit's mapping of its parts is folded into `PATH@REVISION+ADAPTER`."""
    if not isinstance(value, Mapping):
        return text(document, where, value)
    only(document, where, value, ("model", "lora", "override_architecture"))
    if value.get("override_architecture") is not None:
        raise document.error(
            RecipeError,
            (*where, "override_architecture"),
            "overriding the architecture is not supported",
        )
    if "model" not in value:
        raise document.error(RecipeError, where, "model is missing")
    model = _model_path(document, (*where, "model"), value["model"])
    lora = value.get("lora")
    return model if lora is None else f"{model}+{_model_path(document, (*where, 'lora'), lora)}"


def _model_path(document: Document, where: Location, value: object) -> str:
    if not isinstance(value, Mapping):
        return text(document, where, value)
    only(document, where, value, ("path", "revision"))
    path = text(document, (*where, "path"), value.get("path"))
    revision = value.get("revision")
    return path if revision is None else f"{path}@{text(document, (*where, 'revision'), revision)}"
