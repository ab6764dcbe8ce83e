"""The search space: settings → Optuna distributions, parameters → Recipe."""

from evomerge.space.baselines import Baseline
from evomerge.space.groups import layer_groups
from evomerge.space.space import Family, MethodFacts, ParameterFacts, Space

__all__ = ["Baseline", "Family", "MethodFacts", "ParameterFacts", "Space", "layer_groups"]
