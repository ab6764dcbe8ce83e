"""What a campaign is after, as numbers: an outcome's values, conditions and costs, and who dominates whom."""

from evomerge.goals.constraints import feasible, limits, total_violation, violations
from evomerge.goals.costs import Size, relative_costs
from evomerge.goals.dominance import fronts, order
from evomerge.goals.objectives import Objectives
from evomerge.goals.references import References
from evomerge.goals.values import (
    Better,
    best_value,
    higher_is_better,
    is_proportional,
    metric_on,
    ratio,
    recorded_directions,
    weighted_mean,
)

__all__ = [
    "Better",
    "Objectives",
    "References",
    "Size",
    "best_value",
    "feasible",
    "fronts",
    "higher_is_better",
    "is_proportional",
    "limits",
    "metric_on",
    "order",
    "ratio",
    "recorded_directions",
    "relative_costs",
    "total_violation",
    "violations",
    "weighted_mean",
]
