"""What becomes of a family's tokens, in words: for `evomerge check`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evomerge.preflight.family import OpenFamily

SHOWN = 4
"""Tokens that are named before the rest is counted."""


def token_lines(family: OpenFamily, asked: str | None) -> tuple[str, ...]:
    """Say which tokens the merged models have, whose rows they get, and which are lost.

    Args:
        family: The checked models.
        asked: The campaign's `models.tokenizer`.

    Returns:
        Lines for a person; none where all models have the base's tokens.
    """
    vocabulary = family.vocabulary
    if vocabulary is None:
        return ()
    names = {model: name for name, model in family.family.experts.items()}
    names[family.family.base] = "base"
    lines = [f"{asked}: {len(vocabulary.ids)} tokens in {vocabulary.rows} rows"]
    for model, new in vocabulary.new.items():
        if new:
            lines.append(f"{len(new)} from {names[model]}: {_named(new, vocabulary.ids)}")
    for model, lost in vocabulary.lost().items():
        lines.append(f"{len(lost)} of {names[model]} lost: {_named(lost)}")
    filled = vocabulary.filled(tuple(family.checkpoints), family.family.base)
    told = ", ".join(f"{rule} ({count})" for rule, count in filled.items() if count)
    if told:
        lines.append(f"a model that lacks a token gets {told}")
    return tuple(lines)


def _named(tokens: Sequence[str], ids: Mapping[str, int] | None = None) -> str:
    shown = [
        repr(token) if ids is None else f"{token!r} = {ids[token]}" for token in tokens[:SHOWN]
    ]
    more = len(tokens) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
