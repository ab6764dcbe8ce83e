"""What can be wrong with a recipe before any model is opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from evomerge.candidate import Conditional, Recipe, Scalar, Setting, Source, token_sources
from evomerge.errors import RecipeError, nearest
from evomerge.merge.chat_templates import check_template
from evomerge.merge.methods import Method, method
from evomerge.merge.parameters import checked


def check_recipe(recipe: Recipe) -> None:
    """Check method, parameters, their ranges and the number of models.

    Raises:
        RecipeError: Its `field` is the dotted path of what is wrong, as in the file.
    """
    chosen = method(recipe.method)
    if bool(recipe.models) == bool(recipe.slices):
        raise RecipeError("expected either models or slices", field="models")
    if recipe.vocabulary is not None:
        token_sources(recipe.vocabulary.tokens)
    if recipe.chat_template is not None:
        check_template(recipe.chat_template)
    _check_parameters(recipe.parameters, chosen, "parameters")
    _check_models(recipe, chosen, recipe.models, recipe.base_model, "models", listed=False)
    for number, piece in enumerate(recipe.slices):
        field = f"slices.{number}"
        _check_parameters(piece.parameters, chosen, f"{field}.parameters")
        base = piece.base_model or recipe.base_model
        _check_models(recipe, chosen, piece.sources, base, f"{field}.sources", listed=True)
        lengths = {
            source.layer_range[1] - source.layer_range[0]
            for source in piece.sources
            if source.layer_range is not None
        }
        if len(lengths) > 1:
            raise RecipeError(
                f"the layer ranges of a slice must be equally long, found {sorted(lengths)} layers",
                field=f"{field}.sources",
            )


def _check_models(
    recipe: Recipe,
    chosen: Method,
    sources: Sequence[Source],
    base: str | None,
    field: str,
    *,
    listed: bool,
) -> None:
    if not sources:
        return
    names = [source.model for source in sources]
    for number, source in enumerate(sources):
        if source.model in names[:number]:
            raise RecipeError(f"{source.model} is listed twice", field=f"{field}.{number}.model")
        if source.layer_range is not None and not listed:
            raise RecipeError(
                "a layer range belongs into slices, not into models",
                field=f"{field}.{number}.layer_range",
            )
        _check_parameters(source.parameters, chosen, f"{field}.{number}.parameters")
    if chosen.needs_base and base is None:
        raise RecipeError(f"{recipe.method} needs a base_model", field="base_model")
    if listed and chosen.uses_base and base is not None and base not in names:
        raise RecipeError(f"the base model {base} must be one of the slice's sources", field=field)
    count = len(names) - (chosen.uses_base and base in names)
    if base is not None and not listed and not chosen.uses_base and base not in names:
        count += 1  # mergekit adds it to the inputs
    if count < chosen.min_models or (chosen.max_models is not None and count > chosen.max_models):
        besides = " besides the base" if chosen.uses_base else ""
        expected = (
            f"exactly {chosen.min_models}"
            if chosen.min_models == chosen.max_models
            else f"at least {chosen.min_models}"
            if count < chosen.min_models
            else f"at most {chosen.max_models}"
        )
        raise RecipeError(
            f"{recipe.method} takes {expected} model(s){besides}, found {count}", field=field
        )


def _check_parameters(parameters: Mapping[str, Setting], chosen: Method, field: str) -> None:
    for name, setting in parameters.items():
        where = f"{field}.{name}"
        if name in chosen.ignored:
            continue
        if name not in chosen.parameters:
            raise RecipeError(
                f'{chosen.name} has no parameter "{name}"; {nearest(name, chosen.parameters)}',
                field=where,
            )
        for place, value in _values(setting, where):
            try:
                checked(value, chosen.parameters[name])
            except RecipeError as error:
                raise RecipeError(error.message, field=place) from None


def _values(setting: Setting | Conditional, field: str) -> Iterator[tuple[str, Scalar]]:
    """Every scalar in a setting with its place in the file."""
    if isinstance(setting, tuple):
        for number, item in enumerate(setting):
            yield from _values(item, f"{field}.{number}")
    elif isinstance(setting, Conditional):
        yield from _values(setting.value, f"{field}.value")
    else:
        yield field, setting
