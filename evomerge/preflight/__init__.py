"""What a campaign will take: evaluations, memory, disk and time; and what in it is probably not meant."""

from evomerge.preflight.campaign_plan import Plan, plan
from evomerge.preflight.description import describe

__all__ = ["Plan", "describe", "plan"]
