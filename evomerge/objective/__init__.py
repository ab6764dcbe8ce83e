"""What a campaign is after, as numbers: values, constraints, costs, and the order of candidates by them."""

from evomerge.objective.constraints import feasible, limits, total_violation, violations
from evomerge.objective.costs import is_timed, relative_cost, relative_time
from evomerge.objective.dominance import fronts, order
from evomerge.objective.lambda_grid import in_lambda_grid, tuned_lambda
from evomerge.objective.objectives import Direction, Objectives
from evomerge.objective.ranking import Ranked, finalists, loss_of, ranking
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
    "Ranked",
    "References",
    "best_value",
    "feasible",
    "finalists",
    "fronts",
    "higher_is_better",
    "in_lambda_grid",
    "is_proportional",
    "is_timed",
    "limits",
    "loss_of",
    "metric_on",
    "order",
    "ranking",
    "ratio",
    "recorded_directions",
    "relative_cost",
    "relative_time",
    "total_violation",
    "tuned_lambda",
    "violations",
    "weighted_mean",
]
