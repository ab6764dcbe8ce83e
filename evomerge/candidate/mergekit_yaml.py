"""Recipes as mergekit's YAML: every key of mergekit 0.1.5, and our `seed`, `coefficients` and `statistics`.

mergekit ignores keys that it does not know, so a recipe of ours is a configuration of its (of another merge
where there are `coefficients` or `statistics`); the other way round an unknown key is an error here, because
a misspelt one would silently do nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from evomerge import yaml_file
from evomerge.candidate.coefficients import FILE
from evomerge.candidate.gates import GATES_FILE
from evomerge.candidate.moe_reading import moe_data, read_moe_recipe
from evomerge.candidate.moe_recipe import MoeRecipe
from evomerge.candidate.reading import read_recipe
from evomerge.candidate.recipe import (
    STATISTICS,
    Conditional,
    Recipe,
    Setting,
    Slice,
    Source,
    Vocabulary,
    split_places,
    with_places,
)
from evomerge.candidate.tables import Tables
from evomerge.errors import RecipeError, UserError

E = TypeVar("E", bound=UserError)
_NONE: Mapping[str, Recipe] = MappingProxyType({})
_MODEL_KEYS = ("model", "base_model", "source_model", "source")


def load(path: str | Path) -> Recipe:
    """Read a recipe from a mergekit YAML file, and its coefficients from the file that it names.

    Raises:
        RecipeError: A file is missing, is not YAML, or holds a key or value that mergekit does not have;
            it names file, line and field.
    """
    return read_recipe(yaml_file.read(path, RecipeError))


def loads(text: str, path: str | Path | None = None) -> Recipe:
    """Read a recipe from text; `path` is for messages and where coefficients lie. Raises as `load` does."""
    file = None if path is None else Path(path)
    return read_recipe(yaml_file.parse(text, path=file, kind=RecipeError))


def load_all(path: str | Path) -> tuple[Recipe | MoeRecipe, dict[str, Recipe]]:
    """Read a recipe, and the merges that it is made of (`mergekit-multimerge`: a document for each).

    A document with `experts` and no `merge_method` is mergekit-moe's: a mixture of experts.

    Returns:
        The recipe, and name → merge, in the order of the file.

    Raises:
        RecipeError: As `load` does; or of several documents not exactly one has no name.
    """
    documents = yaml_file.read_all(path, RecipeError)
    if len(documents) == 1:
        return _read(documents[0]), {}
    merges: dict[str, Recipe] = {}
    final: Recipe | MoeRecipe | None = None
    for document in documents:
        name = document.data.pop("name", None)
        recipe = _read(document) if name is None else read_recipe(document)
        if name is None and final is None:
            final = recipe
        elif not isinstance(name, str) or not name or name in merges:
            expected = "a name that no other document has, and one document without"
            found = "no second name" if name is None else repr(name)
            raise document.error(RecipeError, ("name",), f"found {found}, expected {expected}")
        elif isinstance(recipe, Recipe):
            merges[name] = recipe
    if final is None:
        raise RecipeError("every document has a name; expected one without, the result", file=path)
    return final, merges


def dumps(recipe: Recipe) -> str:
    """Write a recipe as mergekit YAML: floats in full, models as they are named in the recipe.

    Of coefficients and statistics it names the files, which `save` writes.
    """
    return yaml_file.dump(_data(recipe, FILE, statistics_files(recipe).get(recipe.statistics)))


def dumps_all(recipe: Recipe | MoeRecipe, merges: Mapping[str, Recipe]) -> str:
    """Write a recipe and the merges that it is made of as `load_all` and `mergekit-multimerge` read them.

    That of a mixture is mergekit-moe's.
    """
    read = statistics_files(recipe, merges)
    named = (
        {"name": name} | _data(one, _file_of(name), read.get(one.statistics))
        for name, one in merges.items()
    )
    last = (
        moe_data(recipe)
        if isinstance(recipe, MoeRecipe)
        else _data(recipe, FILE, read.get(recipe.statistics))
    )
    return "---\n".join(map(yaml_file.dump, (*named, last)))


def statistics_files(
    recipe: Recipe | MoeRecipe, merges: Mapping[str, Recipe] = _NONE
) -> dict[str | None, str]:
    """Return the files of statistics that a recipe and its merges name → what they are called beside it."""
    merged = [*merges.values(), *([recipe] if isinstance(recipe, Recipe) else [])]
    named = {one.statistics: split_places(one.statistics) for one in merged if one.statistics}
    files = dict.fromkeys(file for file, _ in named.values())
    beside = {file: f"{n}.{STATISTICS}" if n else STATISTICS for n, file in enumerate(files)}
    return {name: with_places(beside[file], places) for name, (file, places) in named.items()}


def _read(document: yaml_file.Document) -> Recipe | MoeRecipe:
    is_mixture = "experts" in document.data and "merge_method" not in document.data
    return read_moe_recipe(document) if is_mixture else read_recipe(document)


def _file_of(merge: str) -> str:
    """Return the file of the coefficients of one of several merges."""
    return f"{merge}.{FILE}"


def _data(recipe: Recipe, coefficients: str, statistics: str | None) -> dict[str, Any]:
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
    if recipe.coefficients is not None:
        data["coefficients"] = coefficients
    if recipe.statistics is not None:
        data["statistics"] = statistics
    return data


def save(
    recipe: Recipe | MoeRecipe, path: str | Path, merges: Mapping[str, Recipe] = _NONE
) -> None:
    """Write a recipe to a file that `load_all` and mergekit read, and coefficients and gates beside it.

    The caller copies statistics (`statistics_files`).

    Args:
        recipe: What is made.
        path: The file.
        merges: Name → merge that it is made of.
    """
    folder = Path(path).parent
    tables: dict[str, Tables | None] = {}
    if isinstance(recipe, MoeRecipe):
        tables[GATES_FILE] = recipe.gates
    else:
        tables[FILE] = recipe.coefficients
    tables |= {_file_of(name): one.coefficients for name, one in merges.items()}
    for file, one in tables.items():
        if one is not None:
            (folder / file).write_bytes(one.content)
    Path(path).write_text(dumps_all(recipe, merges), encoding="utf-8")


def located(error: E, path: str | Path) -> E:
    """Return the same error with the recipe's file and line, for a recipe that was read from `path`.

    Args:
        error: What the merge room found wrong. Its field is a dotted path into the recipe, of a merge that
            it is made of behind that one's name; without a field its file is a model that the recipe names.
        path: The file that the recipe was loaded from.

    Returns:
        The error itself where it tells its place already, or the recipe does not name what it tells of.
    """
    kind = type(error)
    if error.field is None and error.file is not None:
        for document in yaml_file.read_all(path, RecipeError):
            place = _place_of(document.data, error.file)
            if place:
                return document.error(kind, place, f"{error.file}: {error.message}")
    if error.file is not None or error.field is None:
        return error
    documents = {one.data.get("name"): one for one in yaml_file.read_all(path, RecipeError)}
    merge, _, field = error.field.partition(".")
    is_inside = merge in documents
    document = documents[merge if is_inside else None]
    field = field if is_inside else error.field
    if field == "tokenizer.source" and "tokenizer" not in document.data:
        field = "tokenizer_source"  # mergekit's short form
    location = [int(part) if part.isdigit() else part for part in field.split(".")]
    found = document.error(kind, location, error.message)
    shown = ".".join(filter(None, (merge, field))) if is_inside else field
    return kind(error.message, file=path, line=found.line, field=shown)


def _place_of(data: object, model: str) -> yaml_file.Location:
    """Return where a document first names a model, also as part of `MODEL+ADAPTER`; empty: nowhere."""
    entries = enumerate(data) if isinstance(data, list) else ()
    for key, value in data.items() if isinstance(data, dict) else entries:
        if key in _MODEL_KEYS and f"+{model}+" in f"+{value}+":
            return (key,)
        inside = _place_of(value, model)
        if inside:
            return (key, *inside)
    return ()


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
