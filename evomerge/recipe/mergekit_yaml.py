"""Recipes as mergekit's YAML: every key of mergekit 0.1.5, and our `seed` beside them.

mergekit ignores keys that it does not know, so a recipe of ours is a configuration of its; the other
way round an unknown key is an error here, because a misspelt one would silently do nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evomerge import yaml_file
from evomerge.errors import RecipeError, nearest
from evomerge.recipe.recipe import Conditional, Recipe, Setting, Slice, Source, Vocabulary
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
DTYPES = ("float32", "bfloat16", "float16", "float64")


def load(path: str | Path) -> Recipe:
    """Read a recipe from a mergekit YAML file.

    Raises:
        RecipeError: The file is missing, is not YAML, or holds a key or value that mergekit has not;
            it names file, line and field.
    """
    return _recipe(yaml_file.read(path, RecipeError))


def loads(text: str, path: str | Path | None = None) -> Recipe:
    """Read a recipe from text; `path` only serves the messages. Raises as `load` does."""
    file = None if path is None else Path(path)
    return _recipe(yaml_file.parse(text, path=file, kind=RecipeError))


def dumps(recipe: Recipe) -> str:
    """Write a recipe as mergekit YAML: floats in full, models as they are named in the recipe."""
    data: dict[str, Any] = {"merge_method": recipe.method}
    if recipe.base_model is not None:
        data["base_model"] = recipe.base_model
    if recipe.models:
        data["models"] = [_source_data(source) for source in recipe.models]
    if recipe.slices:
        data["slices"] = [_slice_data(piece) for piece in recipe.slices]
    if recipe.parameters:
        data["parameters"] = _parameters_data(recipe.parameters)
    if recipe.dtype is not None:
        data["dtype"] = recipe.dtype
    if recipe.out_dtype is not None:
        data["out_dtype"] = recipe.out_dtype
    if recipe.vocabulary is not None:
        data["tokenizer"] = _vocabulary_data(recipe.vocabulary)
    if recipe.chat_template is not None:
        data["chat_template"] = recipe.chat_template
    data["seed"] = recipe.seed
    return yaml_file.dump(data)


def save(recipe: Recipe, path: str | Path) -> None:
    """Write a recipe to a file that `load` and `mergekit-yaml` read."""
    Path(path).write_text(dumps(recipe), encoding="utf-8")


def located(error: RecipeError, path: str | Path) -> RecipeError:
    """Return the same error with file and line, for a recipe that was read from `path`.

    Args:
        error: What the merge room found wrong; its field is a dotted path into the recipe.
        path: The file that the recipe was loaded from.
    """
    if error.file is not None or error.field is None:
        return error
    location = [int(part) if part.isdigit() else part for part in error.field.split(".")]
    found = yaml_file.read(path, RecipeError).error(RecipeError, location, error.message)
    return RecipeError(error.message, file=path, line=found.line, field=error.field)


def _recipe(document: Document) -> Recipe:
    data = document.data
    _only(document, (), data, TOP_LEVEL)
    if "merge_method" not in data:
        raise document.error(RecipeError, (), "merge_method is missing, such as merge_method: ties")
    models, slices, parameters = _inputs(document)
    recipe = Recipe(
        method=_text(document, ("merge_method",), data["merge_method"]),
        models=models,
        slices=slices,
        base_model=_optional_model(document, ("base_model",), data.get("base_model")),
        parameters=parameters,
        dtype=_dtype(document, ("dtype",), data.get("dtype")),
        out_dtype=_dtype(document, ("out_dtype",), data.get("out_dtype")),
        vocabulary=_vocabulary(document),
        chat_template=_optional_text(document, ("chat_template",), data.get("chat_template")),
        seed=_whole(document, ("seed",), data.get("seed", 0)),
    )
    return recipe


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
        # Module scope stands between slice and global scope; with one module it is the global one.
        own = _parameters(document, (*where, "parameters"), module.get("parameters"))
        if set(own) & set(parameters):
            own = {name: _fall_through(own.get(name), parameters.get(name)) for name in own}
        parameters = {**parameters, **own}
    else:
        where, module = (), data
    models = module.get("models") or []
    slices = module.get("slices") or []
    return (
        tuple(
            _source(document, (*where, "models", index), item)
            for index, item in enumerate(_sequence(document, (*where, "models"), models))
        ),
        tuple(
            _slice(document, (*where, "slices", index), item)
            for index, item in enumerate(_sequence(document, (*where, "slices"), slices))
        ),
        parameters,
    )


def _fall_through(own: Setting | None, wider: Setting | None) -> Setting:
    """Join two scopes of one parameter: a filter list that matches nothing falls through."""
    if own is None or wider is None:
        result = wider if own is None else own
        assert result is not None  # one of the two scopes has the name
        return result
    if isinstance(own, tuple) and own and isinstance(own[0], Conditional):
        rest = wider if _conditionals(wider) else (Conditional(value=wider),)  # type: ignore[arg-type]
        return (*own, *rest)  # type: ignore[return-value,misc]
    return own


def _conditionals(setting: Setting) -> bool:
    return isinstance(setting, tuple) and bool(setting) and isinstance(setting[0], Conditional)


def _only_module(document: Document) -> tuple[Location, dict[str, Any]]:
    modules = _mapping(document, ("modules",), document.data["modules"])
    if len(modules) != 1:
        names = ", ".join(modules)
        raise document.error(
            RecipeError,
            ("modules",),
            f"found {len(modules)} modules ({names}); models of one module only can be merged",
        )
    name = next(iter(modules))
    where = ("modules", name)
    module = _mapping(document, where, modules[name])
    _only(document, where, module, ("models", "slices", "parameters"))
    if bool(module.get("models")) == bool(module.get("slices")):
        raise document.error(RecipeError, where, "expected either models or slices")
    return where, module


def _source(document: Document, where: Location, item: object) -> Source:
    data = _mapping(document, where, item)
    _only(document, where, data, ("model", "layer_range", "parameters"))
    if "model" not in data:
        raise document.error(RecipeError, where, "model is missing")
    return Source(
        model=_model(document, (*where, "model"), data["model"]),
        layer_range=_layer_range(document, (*where, "layer_range"), data.get("layer_range")),
        parameters=_parameters(document, (*where, "parameters"), data.get("parameters")),
    )


def _slice(document: Document, where: Location, item: object) -> Slice:
    data = _mapping(document, where, item)
    # mergekit reads residual_weight and never uses it.
    _only(document, where, data, ("sources", "base_model", "residual_weight", "parameters"))
    sources = _sequence(document, (*where, "sources"), data.get("sources"))
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
        for name, item in _mapping(document, where, value).items()
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
    data = _mapping(document, where, item)
    _only(document, where, data, ("value", "filter"))
    if "value" not in data:
        raise document.error(RecipeError, where, "value is missing")
    value = data["value"]
    within = (*where, "value")
    return Conditional(
        value=tuple(_scalar(document, (*within, i), entry) for i, entry in enumerate(value))
        if isinstance(value, list)
        else _scalar(document, within, value),
        filter=_optional_text(document, (*where, "filter"), data.get("filter")),
    )


def _scalar(document: Document, where: Location, value: object) -> bool | int | float | str:
    if isinstance(value, float) and not math.isfinite(value):
        raise document.error(RecipeError, where, f"found {value}, expected a finite number")
    if isinstance(value, bool | int | float | str):
        return value
    raise document.error(
        RecipeError,
        where,
        f"found {_described(value)}, expected a value, a list of values (a gradient over the layers) "
        "or a list of {filter, value}",
    )


def _layer_range(document: Document, where: Location, value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    pair = _sequence(document, where, value)
    if len(pair) != 2 or any(isinstance(end, bool) or not isinstance(end, int) for end in pair):
        raise document.error(
            RecipeError, where, f"found {pair}, expected two whole numbers, [start, stop)"
        )
    start, stop = pair
    if not 0 <= start < stop:
        raise document.error(
            RecipeError,
            where,
            f"found [{start}, {stop}], an empty range; expected 0 <= start < stop",
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
    given = _mapping(document, where, tokenizer)
    _only(document, where, given, ("source", "tokens", "pad_to_multiple_of"))
    pad = given.get("pad_to_multiple_of")
    return Vocabulary(
        source=_model(document, (*where, "source"), given.get("source", "union")),
        tokens=_mapping(document, (*where, "tokens"), given.get("tokens") or {}),
        pad_to_multiple_of=None
        if pad is None
        else _whole(document, (*where, "pad_to_multiple_of"), pad, low=1),
    )


def _optional_model(document: Document, where: Location, value: object) -> str | None:
    return None if value is None else _model(document, where, value)


def _model(document: Document, where: Location, value: object) -> str:
    """A model's name; mergekit's mapping of its parts is folded into `PATH@REVISION+ADAPTER`."""
    if not isinstance(value, Mapping):
        return _text(document, where, value)
    _only(document, where, value, ("model", "lora", "override_architecture"))
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
        return _text(document, where, value)
    _only(document, where, value, ("path", "revision"))
    path = _text(document, (*where, "path"), value.get("path"))
    revision = value.get("revision")
    return path if revision is None else f"{path}@{_text(document, (*where, 'revision'), revision)}"


def _dtype(document: Document, where: Location, value: object) -> str | None:
    if value is None:
        return None
    name = _text(document, where, value).removeprefix("torch.")
    if name not in DTYPES:
        raise document.error(RecipeError, where, f'found "{name}"; {nearest(name, DTYPES)}')
    return name


def _text(document: Document, where: Location, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise document.error(RecipeError, where, f"found {_described(value)}, expected text")
    return value


def _optional_text(document: Document, where: Location, value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise document.error(RecipeError, where, f"found {_described(value)}, expected text")
    return value


def _whole(document: Document, where: Location, value: object, low: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise document.error(
            RecipeError,
            where,
            f"found {_described(value)}, expected a whole number of at least {low}",
        )
    return value


def _mapping(document: Document, where: Location, value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise document.error(RecipeError, where, f"found {_described(value)}, expected a mapping")
    return dict(value)


def _sequence(document: Document, where: Location, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise document.error(RecipeError, where, f"found {_described(value)}, expected a list")
    return value


def _only(
    document: Document, where: Location, data: Mapping[str, object], known: Iterable[str]
) -> None:
    known = tuple(known)
    for key in data:
        if key not in known:
            raise document.error(
                RecipeError, (*where, key), f'unknown key "{key}"; {nearest(key, known)}'
            )


def _described(value: object) -> str:
    if value is None:
        return "nothing"
    return {dict: "a mapping", list: "a list"}.get(type(value), repr(value))


def _source_data(source: Source) -> dict[str, Any]:
    data: dict[str, Any] = {"model": source.model}
    if source.layer_range is not None:
        data["layer_range"] = list(source.layer_range)
    if source.parameters:
        data["parameters"] = _parameters_data(source.parameters)
    return data


def _slice_data(piece: Slice) -> dict[str, Any]:
    data: dict[str, Any] = {"sources": [_source_data(source) for source in piece.sources]}
    if piece.base_model is not None:
        data["base_model"] = piece.base_model
    if piece.parameters:
        data["parameters"] = _parameters_data(piece.parameters)
    return data


def _parameters_data(parameters: Mapping[str, Setting]) -> dict[str, Any]:
    return {name: _setting_data(setting) for name, setting in parameters.items()}


def _setting_data(setting: Setting) -> object:
    if not isinstance(setting, tuple):
        return setting
    return [_conditional_data(item) if isinstance(item, Conditional) else item for item in setting]


def _conditional_data(item: Conditional) -> dict[str, Any]:
    value = list(item.value) if isinstance(item.value, tuple) else item.value
    return {"value": value} if item.filter is None else {"filter": item.filter, "value": value}


def _vocabulary_data(vocabulary: Vocabulary) -> dict[str, Any]:
    data: dict[str, Any] = {"source": vocabulary.source}
    if vocabulary.tokens:
        data["tokens"] = dict(vocabulary.tokens)
    if vocabulary.pad_to_multiple_of is not None:
        data["pad_to_multiple_of"] = vocabulary.pad_to_multiple_of
    return data
