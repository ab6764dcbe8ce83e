"""The study: samplers by name, ask and tell, nothing lost and nothing done twice."""

from evomerge.search.objectives import directions, higher_is_better, objective_values
from evomerge.search.ranking import Ranked
from evomerge.search.study import Study

__all__ = ["Ranked", "Study", "directions", "higher_is_better", "objective_values"]
