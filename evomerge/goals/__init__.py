"""What a campaign is after, as numbers: an outcome's values, conditions and costs, and who dominates whom."""

from evomerge.goals.conditions import feasible, limits, total_violation, violations
from evomerge.goals.costs import Size, relative_costs
from evomerge.goals.dominance import fronts, order
from evomerge.goals.judge import Judge
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
from evomerge.goals.yardsticks import Yardsticks

__all__ = [
    "Better",
    "Judge",
    "Size",
    "Yardsticks",
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
