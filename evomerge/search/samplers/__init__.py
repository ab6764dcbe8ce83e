"""Samplers by name: a class in a file of its own, and a line here or an entry point elsewhere."""

from importlib.metadata import entry_points

from evomerge.config import Campaign
from evomerge.errors import CampaignError, nearest
from evomerge.search.samplers.cmaes import CmaEsSampler
from evomerge.search.samplers.gradient import DescentSampler
from evomerge.search.samplers.optuna_samplers import GpSampler, NsgaSampler, TpeSampler
from evomerge.search.samplers.random import RandomSampler
from evomerge.search.samplers.sampler import Measurement, Params, Problem, Sampler, seed_of
from evomerge.search.samplers.sobol import SobolSampler

SAMPLERS: dict[str, type[Sampler]] = {
    "gradient": DescentSampler,
    "cmaes": CmaEsSampler,
    "tpe": TpeSampler,
    "nsga2": NsgaSampler,
    "gp": GpSampler,
    "random": RandomSampler,
    "qmc": SobolSampler,
}
"""Name in a campaign file → class, called with a `Problem`."""
SAMPLERS |= {point.name: point.load() for point in entry_points(group="evomerge.samplers")}

__all__ = ["SAMPLERS", "Measurement", "Params", "Problem", "Sampler", "sampler_class", "seed_of"]


def sampler_class(campaign: Campaign) -> type[Sampler]:
    """Return the class of a campaign's sampler.

    Raises:
        CampaignError: There is none of this name, or it cannot handle several objectives.
    """
    name = campaign.search.sampler
    if name not in SAMPLERS:
        raise CampaignError(
            f'found "{name}", expected one of auto, {", ".join(SAMPLERS)}; {nearest(name, SAMPLERS)}',
            field="search.sampler",
        )
    kind = SAMPLERS[name]
    if campaign.mode != "mean" and not kind.several_objectives:
        others = [other for other, one in SAMPLERS.items() if one.several_objectives]
        raise CampaignError(
            f"{name} searches one value, and a Pareto front has several; use {', '.join(others)}, "
            "or mode: mean",
            field="search.sampler",
        )
    return kind
