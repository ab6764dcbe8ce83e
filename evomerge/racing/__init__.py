"""Racing: candidates are scored block by block, and given up once they cannot win."""

from evomerge.racing.expectation import expectation
from evomerge.racing.order import blocks
from evomerge.racing.race import completed, give_up

__all__ = ["blocks", "completed", "expectation", "give_up"]
