"""Where single tokens of a merged vocabulary get their rows from (mergekit's `tokenizer: {tokens: …}`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from evomerge.errors import RecipeError, nearest

KINDS = ("zero", "model_token")


@dataclass(frozen=True)
class TokenSource:
    """Where one token's row comes from.

    Attributes:
        kind: `model`: the token's own row in a model; `model_token`: another row of a model; `zero`: zeros;
            `none`: nothing is said, which only helps where every model has the token.
        model: The model, of the first two kinds.
        token: Of `model_token`: which row, by its token.
        token_id: Of `model_token`: which row, by its number.
        force: Also for models that have the token themselves.
    """

    kind: Literal["model", "model_token", "zero", "none"]
    model: str | None = None
    token: str | None = None
    token_id: int | None = None
    force: bool = False


def token_sources(tokens: Mapping[str, object]) -> dict[str, TokenSource]:
    """Read the overrides of a vocabulary; models are names.

    Args:
        tokens: As `Vocabulary` holds them.

    Raises:
        RecipeError: An override is none of mergekit's; the field names its token.
    """
    return {
        token: token_source(value, f"tokenizer.tokens.{token}") for token, value in tokens.items()
    }


def token_source(value: object, field: str) -> TokenSource:
    """Read one override. Raises as `token_sources` does; `field` is where it stands."""
    if not isinstance(value, Mapping):
        raise RecipeError(f"found {value!r}, expected {{source: …, force: …}}", field=field)
    _only(value, ("source", "force"), field)
    force, source = value.get("force", False), value.get("source")
    if not isinstance(force, bool):
        raise RecipeError(f"found {force!r}, expected true or false", field=f"{field}.force")
    if source is None:
        if force:
            raise RecipeError("force needs a source", field=field)
        return TokenSource("none")
    if isinstance(source, str):
        return TokenSource("model", source, force=force)
    place = f"{field}.source"
    if not isinstance(source, Mapping):
        raise RecipeError(f"found {source!r}, expected a model or {{kind: …}}", field=place)
    kind = source.get("kind")
    if kind not in KINDS:
        raise RecipeError(f'found kind "{kind}"; {nearest(str(kind), KINDS)}', field=place)
    if kind == "zero":
        _only(source, ("kind",), place)
        return TokenSource("zero", force=force)
    return _model_token(source, place, force)


def _model_token(source: Mapping[str, Any], field: str, force: bool) -> TokenSource:
    _only(source, ("kind", "model", "token", "token_id"), field)
    model, token, number = (source.get(key) for key in ("model", "token", "token_id"))
    if not isinstance(model, str):
        raise RecipeError("model is missing", field=field)
    if (token is None) == (number is None):
        raise RecipeError("expected either token or token_id", field=field)
    if token is not None and not isinstance(token, str):
        raise RecipeError(f"found {token!r}, expected text", field=f"{field}.token")
    if number is not None and (type(number) is not int or number < 0):
        raise RecipeError(f"found {number!r}, expected a token's number", field=f"{field}.token_id")
    return TokenSource("model_token", model, token, number, force)


def _only(value: Mapping[str, Any], known: tuple[str, ...], field: str) -> None:
    for key in value:
        if key not in known:
            raise RecipeError(f'unknown key "{key}"; {nearest(str(key), known)}', field=field)
