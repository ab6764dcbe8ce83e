"""The study: samplers by name, ask and tell, nothing lost and nothing done twice."""

from evomerge.search.forecast import Forecast, forecast
from evomerge.search.gradient_sampler import GradientSampler
from evomerge.search.history import Known
from evomerge.search.objectives import directions, reached
from evomerge.search.racing import race_faults, race_of, unbounded
from evomerge.search.ranking import Ranked, finalists
from evomerge.search.study import Study
from evomerge.search.tally import Ended, Tally

__all__ = [
    "Ended",
    "Forecast",
    "GradientSampler",
    "Known",
    "Ranked",
    "Study",
    "Tally",
    "directions",
    "finalists",
    "forecast",
    "race_faults",
    "race_of",
    "reached",
    "unbounded",
]
