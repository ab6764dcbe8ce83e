"""What kinds made over members check alike: their names in a campaign, and ranges of single numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evomerge import config
from evomerge.errors import CampaignError, nearest

if TYPE_CHECKING:
    from evomerge.space import Family


def axes_of(value: config.Range) -> list[str]:
    """Return which of its keys say how a number differs within one merge: `per`, `sum`, `experts`.

    Those with their defaults, as a stored campaign has all, are not among them.
    """
    plain = config.Range(low=value.low, high=value.high, log=value.log)
    keys = ("per", "sum", "experts")
    return [key for key in keys if getattr(value, key) != getattr(plain, key)]


def members_of(
    settings: config.SpaceSettings,
    family: Family,
    default: Sequence[str],
    reserved: Sequence[str] = (),
) -> tuple[str, ...]:
    """Return the names of the members.

    Args:
        settings: The campaign's `space`.
        family: The models.
        default: The members where none is named.
        reserved: Names that no expert may have, besides `base` and `best`.

    Raises:
        CampaignError: A name is unknown, or an expert's is reserved.
    """
    from evomerge.space.baselines import BASE, BEST

    for name in (BASE, BEST, *reserved):
        if name in family.experts:
            raise CampaignError(
                f'an expert is called "{name}", which means something else in the kind {settings.kind}; '
                "give it another name: {model: …, name: …}",
                field="models.experts",
            )
    known = (BASE, *family.experts, BEST)
    for place, name in enumerate(settings.members):
        if name not in known:
            raise CampaignError(
                f'"{name}" is no member; {nearest(name, known)}', field=f"space.members.{place}"
            )
    return settings.members or tuple(default)
