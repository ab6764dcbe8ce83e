"""What a campaign is after, as numbers: an outcome's values, conditions and costs, and who dominates whom."""

from evomerge.objective.constraints import feasible, limits, total_violation, violations
from evomerge.objective.costs import Size, relative_costs
from evomerge.objective.dominance import fronts, order
from evomerge.objective.lambda_grid import in_lambda_grid, tuned_lambda
from evomerge.objective.objectives import Direction, Objectives
from evomerge.objective.references import References
from evomerge.objective.values import (
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
    "Direction",
    "Objectives",
    "References",
    "Size",
    "best_value",
    "feasible",
    "fronts",
    "higher_is_better",
    "in_lambda_grid",
    "is_proportional",
    "limits",
    "metric_on",
    "order",
    "ratio",
    "recorded_directions",
    "relative_costs",
    "total_violation",
    "tuned_lambda",
    "violations",
    "weighted_mean",
]
