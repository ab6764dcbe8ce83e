"""Recipes as mergekit's YAML: every key of mergekit 0.1.5, and our `seed` and `coefficients` beside them.

mergekit ignores keys that it does not know, so a recipe of ours is a configuration of its (of another merge
where there are `coefficients`); the other way round an unknown key is an error here, because a misspelt one
would silently do nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evomerge import yaml_file
from evomerge.candidate.coefficients import FILE
from evomerge.candidate.reading import read_recipe
from evomerge.candidate.recipe import Conditional, Recipe, Setting, Slice, Source, Vocabulary
from evomerge.errors import RecipeError


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


def dumps(recipe: Recipe) -> str:
    """Write a recipe as mergekit YAML: floats in full, models as they are named in the recipe.

    Of coefficients it names the file, which `save` writes.
    """
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
        data["coefficients"] = FILE
    return yaml_file.dump(data)


def save(recipe: Recipe, path: str | Path) -> None:
    """Write a recipe to a file that `load` and `mergekit-yaml` read, and its coefficients beside it."""
    if recipe.coefficients is not None:
        (Path(path).parent / FILE).write_bytes(recipe.coefficients.content)
    Path(path).write_text(dumps(recipe), encoding="utf-8")


def located(error: RecipeError, path: str | Path) -> RecipeError:
    """Return the same error with file and line, for a recipe that was read from `path`.

    Args:
        error: What the merge room found wrong; its field is a dotted path into the recipe.
        path: The file that the recipe was loaded from.
    """
    if error.file is not None or error.field is None:
        return error
    document = yaml_file.read(path, RecipeError)
    field = error.field
    if field == "tokenizer.source" and "tokenizer" not in document.data:
        field = "tokenizer_source"  # mergekit's short form
    location = [int(part) if part.isdigit() else part for part in field.split(".")]
    found = document.error(RecipeError, location, error.message)
    return RecipeError(error.message, file=path, line=found.line, field=field)


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
