"""Racing: candidates are scored block by block, and given up once they cannot win."""

from evomerge.racing.order import block_order, disagreement
from evomerge.racing.race import completed, give_up

__all__ = ["block_order", "completed", "disagreement", "give_up"]
