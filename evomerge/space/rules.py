"""What the settings of a space ask for, against what the models and the methods can do."""

from __future__ import annotations

import math
from collections.abc import Mapping

from evomerge import config as campaign
from evomerge.errors import CampaignError
from evomerge.merge.methods import Method
from evomerge.space.dimensions import WEIGHT, Family, is_per_source


def check_settings(
    settings: campaign.SpaceSettings,
    family: Family,
    methods: Mapping[str, Method],
) -> None:
    """Refuse what would have no meaning.

    Args:
        settings: The campaign's `space`.
        family: The models.
        methods: Facts on each method of `settings.method`.

    Raises:
        CampaignError: Naming the field, what was found and what was expected.
    """
    for name, setting in settings.parameters.items():
        _check_meaning(name, methods)
        if isinstance(setting, campaign.Range):
            _check_range(name, setting, methods)
            _check_sum(name, setting, len(family.experts))
    _check_subsets(settings, family, methods)


def _check_meaning(name: str, methods: Mapping[str, Method]) -> None:
    """Refuse a value for two parameters of one name, such as the epsilons of della and ram."""
    kinds = {m.parameters[name].per_source for m in methods.values() if name in m.parameters}
    if len(kinds) > 1:
        raise CampaignError(
            f"{name} is a number of each model in one of the methods and of all in another; search "
            "these methods apart",
            field=f"space.parameters.{name}",
        )


def _check_range(name: str, setting: campaign.Range, methods: Mapping[str, Method]) -> None:
    field = f"space.parameters.{name}"
    for key, given in (("sum", setting.sum is not None), ("experts", bool(setting.experts))):
        if given and not is_per_source(name, methods):
            raise CampaignError(
                f"{name} is one number for all models, not one an expert; leave {key} out",
                field=f"{field}.{key}",
            )


def _check_sum(name: str, setting: campaign.Range, experts: int) -> None:
    """Refuse a sum that no values within their range have: scaled to it, all would lie outside."""
    if setting.sum is None:
        return
    least, most = experts * setting.low, experts * setting.high
    near = any(math.isclose(setting.sum, end) for end in (least, most))
    if near or least <= setting.sum <= most:
        return
    found = f"{experts} values of {setting.low:g} to {setting.high:g}, one an expert, add up to"
    each = setting.sum / experts
    if setting.sum > most:
        fault = f"{found} {most:g} at most; expected high of at least {each:.4g}"
    else:
        fault = f"{found} {least:g} at least; expected low of at most {each:.4g}"
    raise CampaignError(
        f"found {setting.sum:g}, but {fault}, or another sum", field=f"space.parameters.{name}.sum"
    )


def _check_subsets(
    settings: campaign.SpaceSettings, family: Family, methods: Mapping[str, Method]
) -> None:
    if settings.subsets and (
        WEIGHT not in settings.parameters
        or not any(WEIGHT in method.parameters for method in methods.values())
    ):
        raise CampaignError(
            f"an expert is left out by weight 0, and {' or '.join(methods)} has no weight here; leave "
            "subsets out, or give a weight",
            field="space.subsets",
        )
    if settings.subsets and len(family.experts) < 2:
        raise CampaignError(
            "one expert always takes part, and there is one only; leave subsets out",
            field="space.subsets",
        )
