"""Every kind of candidate by name; a new one is a file of its own and one line here.

A kind of another package has an entry point of the group `evomerge.kinds`, its class, instead of that line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from evomerge.candidate import Arrays, Candidate, no_arrays
from evomerge.config.faults import at_field
from evomerge.errors import CampaignError, UserError, nearest
from evomerge.kinds.ensemble import EnsembleKind
from evomerge.kinds.kind import Assignment, Builder, ItemPrompts, Kind, SearchSpace
from evomerge.kinds.merge import MergeKind
from evomerge.kinds.mixture import MixtureKind
from evomerge.kinds.stack import StackKind

if TYPE_CHECKING:
    from evomerge.config import SpaceSettings
    from evomerge.merge.checkpoint import Checkpoint
    from evomerge.space import Family

KINDS: dict[str, Kind] = {
    "merge": MergeKind(),
    "stack": StackKind(),
    "mixture": MixtureKind(),
    "ensemble": EnsembleKind(),
}
KINDS |= {point.name: point.load()() for point in entry_points(group="evomerge.kinds")}


def kind_of(candidate: Candidate) -> Kind:
    """Return the kind of a candidate."""
    return KINDS[candidate.kind]


def kind_named(name: str) -> Kind:
    """Return the kind that a campaign names.

    Raises:
        CampaignError: There is none; the nearest known name is given.
    """
    if name not in KINDS:
        raise CampaignError(
            f'unknown kind "{name}"; {nearest(name, KINDS)}; one of another package needs that package',
            field="space.kind",
        )
    return KINDS[name]


def check_space(settings: SpaceSettings) -> None:
    """Check a campaign's space, or each of several, as far as no model is needed. Raises CampaignError."""
    for place, part in enumerate(settings.parts):
        with _at_part(settings, place):
            kind = kind_named(part.kind)
            for key in part.model_fields_set - kind.keys - {"kind"}:
                raise CampaignError(
                    f'the kind "{part.kind}" takes no {key}; {nearest(key, kind.keys)}',
                    field=f"space.{key}",
                )
            kind.check(part)


def space_of(settings: SpaceSettings, family: Family, seed: int) -> SearchSpace:
    """Lay out a campaign's space, or several that compete. Arguments and errors are those of `Kind.space`."""
    from evomerge.space import SeveralSpaces

    found = []
    for place, part in enumerate(settings.parts):
        with _at_part(settings, place):
            found.append(kind_named(part.kind).space(part, family, seed))
    if not settings.spaces:
        return found[0]
    return SeveralSpaces(dict(zip(settings.names, found, strict=True)))


def check_base(settings: SpaceSettings, base: Checkpoint) -> None:
    """Check what a campaign's kinds can tell of its base. Raises UserError."""
    for place, part in enumerate(settings.parts):
        with _at_part(settings, place):
            kind_named(part.kind).check_base(part, base)


@contextmanager
def _at_part(settings: SpaceSettings, place: int) -> Iterator[None]:
    """Let an error about the space name the entry of the list that it is about, if there is a list."""
    try:
        yield
    except UserError as error:
        head, _, rest = (error.field or "").partition(".")
        if head != "space" or not settings.spaces:
            raise
        with at_field(f"space.{place}.{rest}".rstrip(".")):
            raise


def read(text: str, arrays: Arrays = no_arrays) -> Candidate:
    """Return the candidate whose `text` this is.

    Args:
        text: The text.
        arrays: Gives the arrays that it names.

    Raises:
        CampaignError: It is of a kind whose package is not installed here.
    """
    data = json.loads(text)
    return kind_named(data.pop("kind")).read(data, arrays)


__all__ = [
    "KINDS",
    "Assignment",
    "Builder",
    "ItemPrompts",
    "Kind",
    "SearchSpace",
    "check_base",
    "check_space",
    "kind_named",
    "kind_of",
    "read",
    "space_of",
]
