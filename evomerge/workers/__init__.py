"""Workers: merge and score joined behind plain functions, in this process or as Ray actors."""

from evomerge.workers.assignment import Assignment
from evomerge.workers.early import EarlyPool
from evomerge.workers.opening import open_pool, start_early
from evomerge.workers.pool import Evaluates, Pool
from evomerge.workers.ray_pool import RayPool
from evomerge.workers.serial_pool import SerialPool

__all__ = [
    "Assignment",
    "EarlyPool",
    "Evaluates",
    "Pool",
    "RayPool",
    "SerialPool",
    "open_pool",
    "start_early",
]
