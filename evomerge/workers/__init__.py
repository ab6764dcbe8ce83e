"""Workers: merge and score joined behind plain functions, in this process or as Ray actors."""

from evomerge.workers.assignment import Assignment
from evomerge.workers.opening import open_pool
from evomerge.workers.pool import Evaluates, Pool
from evomerge.workers.ray_pool import RayPool
from evomerge.workers.serial_pool import SerialPool

__all__ = ["Assignment", "Evaluates", "Pool", "RayPool", "SerialPool", "open_pool"]
