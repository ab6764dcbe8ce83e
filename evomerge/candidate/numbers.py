"""A recipe as its form, which the candidates of a search share, and its numbers.

Two recipes are equal where both are. Numbers are the floats of the settings, in the order in which they
stand in the recipe; whole numbers, texts and truth values belong to the form.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace

from evomerge.candidate.recipe import Conditional, Recipe, Scalar, Setting, Slice, Source


@dataclass(frozen=True)
class Parts:
    """A recipe, taken apart.

    Attributes:
        form: All but the numbers; equal for recipes that differ in nothing else.
        numbers: In a fixed order.
    """

    form: tuple[Hashable, ...]
    numbers: tuple[float, ...]


def parts(recipe: Recipe) -> Parts:
    """Take a recipe apart."""
    form: list[Hashable] = [
        recipe.method,
        recipe.base_model,
        recipe.dtype,
        recipe.out_dtype,
        None if recipe.vocabulary is None else repr(recipe.vocabulary),
        recipe.chat_template,
        recipe.seed,
        len(recipe.models),
        len(recipe.slices),
    ]
    numbers: list[float] = []
    for source in recipe.models:
        _source(source, form, numbers)
    for piece in recipe.slices:
        form += (piece.base_model, len(piece.sources))
        for source in piece.sources:
            _source(source, form, numbers)
        _settings(piece.parameters, form, numbers)
    _settings(recipe.parameters, form, numbers)
    return Parts(tuple(form), tuple(numbers))


def with_numbers(recipe: Recipe, numbers: Iterator[float]) -> Recipe:
    """Return the recipe of the same form with other numbers.

    Args:
        recipe: Gives the form.
        numbers: In the order of `Parts.numbers`, at least as many as the recipe has.
    """
    return replace(
        recipe,
        models=tuple(_new_source(source, numbers) for source in recipe.models),
        slices=tuple(_new_slice(piece, numbers) for piece in recipe.slices),
        parameters=_new_settings(recipe.parameters, numbers),
    )


def _source(source: Source, form: list[Hashable], numbers: list[float]) -> None:
    form += (source.model, source.layer_range)
    _settings(source.parameters, form, numbers)


def _settings(
    parameters: Mapping[str, Setting], form: list[Hashable], numbers: list[float]
) -> None:
    form.append(len(parameters))
    form += parameters
    for setting in parameters.values():
        if type(setting) is float:  # by far the most, and the quicker for it
            form.append(float)
            numbers.append(setting)
        else:
            _setting(setting, form, numbers)


def _setting(setting: Setting | Conditional, form: list[Hashable], numbers: list[float]) -> None:
    """Every entry of the form says what it is: 1, 1.0 and True are equal in Python."""
    if isinstance(setting, float):
        form.append(float)
        numbers.append(setting)
    elif isinstance(setting, tuple):
        form.append((tuple, len(setting)))
        for item in setting:
            _setting(item, form, numbers)
    elif isinstance(setting, Conditional):
        form.append((Conditional, setting.filter))
        _setting(setting.value, form, numbers)
    else:
        form.append((type(setting), setting))


def _new_slice(piece: Slice, numbers: Iterator[float]) -> Slice:
    sources = tuple(_new_source(source, numbers) for source in piece.sources)
    return Slice(sources, piece.base_model, _new_settings(piece.parameters, numbers))


def _new_source(source: Source, numbers: Iterator[float]) -> Source:
    return Source(source.model, source.layer_range, _new_settings(source.parameters, numbers))


def _new_settings(
    parameters: Mapping[str, Setting], numbers: Iterator[float]
) -> dict[str, Setting]:
    return {name: _new_setting(setting, numbers) for name, setting in parameters.items()}


def _new_setting(setting: Setting, numbers: Iterator[float]) -> Setting:
    if not isinstance(setting, tuple):
        return _new_scalar(setting, numbers)
    found = [
        _new_conditional(item, numbers)
        if isinstance(item, Conditional)
        else _new_scalar(item, numbers)
        for item in setting
    ]
    return tuple(found)  # type: ignore[return-value]  # all scalars or all conditionals, as before


def _new_conditional(item: Conditional, numbers: Iterator[float]) -> Conditional:
    if not isinstance(item.value, tuple):
        return Conditional(_new_scalar(item.value, numbers), item.filter)
    value = tuple(_new_scalar(one, numbers) for one in item.value)
    return Conditional(value, item.filter)


def _new_scalar(value: Scalar, numbers: Iterator[float]) -> Scalar:
    return next(numbers) if isinstance(value, float) else value
