"""The search space: settings → Optuna distributions, points → candidates, gradients → gradient."""

from evomerge.space.baselines import Baseline, Wanted
from evomerge.space.choices import Choices
from evomerge.space.dimensions import REST, Family
from evomerge.space.groups import layer_groups
from evomerge.space.needs import Needs
from evomerge.space.regions import Region, Regions
from evomerge.space.several import SeveralSpaces, in_one_space
from evomerge.space.space import Space
from evomerge.space.transfer import transfer

__all__ = [
    "REST",
    "Baseline",
    "Choices",
    "Family",
    "Needs",
    "Region",
    "Regions",
    "SeveralSpaces",
    "Space",
    "Wanted",
    "in_one_space",
    "layer_groups",
    "transfer",
]
