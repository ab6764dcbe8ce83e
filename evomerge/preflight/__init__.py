"""What a campaign will take: evaluations, memory, disk and time; and what in it is probably not meant."""

from evomerge.preflight.description import describe
from evomerge.preflight.plan import Plan, plan

__all__ = ["Plan", "describe", "plan"]
