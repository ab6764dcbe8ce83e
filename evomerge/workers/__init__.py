"""Workers: merge and score joined behind plain functions, in this process or as Ray actors."""

from evomerge.workers.opening import Started, open_pool, started_workers
from evomerge.workers.pool import Evaluates, Pool, SerialPool
from evomerge.workers.ray_pool import RayPool
from evomerge.workers.setup import WorkerSetup

__all__ = [
    "Evaluates",
    "Pool",
    "RayPool",
    "SerialPool",
    "Started",
    "WorkerSetup",
    "open_pool",
    "started_workers",
]
