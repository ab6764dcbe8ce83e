"""Ray, started on this machine or joined: quiet, and on loopback unless it was running already."""

from __future__ import annotations

import math
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

from evomerge.errors import CampaignError, EvomergeError, UserError
from evomerge.workers.joining import SECONDS_TO_ANSWER, Joining, find_cluster
from evomerge.workers.placement import capacity, workers_that_fit
from evomerge.workers.scratch import ScratchFolder

NAMESPACE = "evomerge"
OBJECT_STORE_BYTES = 100 * 2**20
"""Only jobs and outcomes pass through it."""

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # what the pool says of a dead worker is enough
    "RAY_worker_niceness": "0",  # Ray's own 15 starves a search on a machine that does anything else
}
_OWN = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # one-machine mode: nothing listens beyond 127.0.0.1
    "RAY_prestart_worker_first_driver": "0",  # one a core, and all threads here wait for them
    "RAY_enable_autoscaler_v2": "1",  # the first version of its process takes a second to end
}
"""Of a Ray that is started here."""


class Cluster:
    """A running Ray, with room for the workers asked for.

    Args:
        count: Workers; `auto`: as many as the machine or cluster holds.
        cpus: Cores of each.
        gpus: GPUs of each, fractions too.
        address: A cluster to join; None: the one this process is in already, or else a new one on
            this machine, which `close` stops.

    Attributes:
        count: Number of workers.

    Raises:
        CampaignError: The workers do not fit.
        UserError: No cluster can be joined at `address`.
        EvomergeError: Ray cannot be started.
    """

    def __init__(
        self, *, count: int | Literal["auto"], cpus: float, gpus: float, address: str | None
    ) -> None:
        self._folder: ScratchFolder | None = None
        self._joined = False
        self._lost: set[str] = set()
        joining = None if address is None else find_cluster(address)
        own = _OWN | _private_token() if joining is None else joining.environment
        with _environment({**_QUIET, **own}):
            import ray

            if not ray.is_initialized():
                self._joined = True
                self._start(count, cpus, joining)
        self._wanted, self._cpus, self._gpus, self._alone = count, cpus, gpus, address is None
        try:
            nodes = list(self.nodes().values())
            self.count = workers_that_fit(count, cpus, gpus, nodes, may_share_cores=self._alone)
        except CampaignError:
            self.close()
            raise

    def nodes(self) -> dict[str, Mapping[str, float]]:
        """Return the nodes that are alive: id → Ray's resources."""
        return {name: node["Resources"] for name, node in self._alive().items()}

    def has_lost(self, node: str) -> bool:
        """Return whether a node is gone, which Ray itself may take half a minute to notice."""
        found = self._alive().get(node)
        if found is None:
            return True
        place = (found["NodeManagerAddress"], found["NodeManagerPort"])
        try:
            socket.create_connection(place, SECONDS_TO_ANSWER).close()
        except OSError:
            self._lost.add(node)
            return True
        return False

    def room(self) -> int:
        """Return how many workers there should be now, as nodes join and leave."""
        if self._alone:
            return self.count
        fit = capacity(self._cpus, self._gpus, self.nodes().values())
        return fit if self._wanted == "auto" else min(self._wanted, fit)

    def close(self) -> None:
        """Stop what was started here, or leave what was joined; harmless when called again."""
        if self._joined:
            import ray

            ray.shutdown()
            self._joined = False
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def _alive(self) -> dict[str, dict[str, Any]]:
        import ray

        found = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
        return {name: node for name, node in found.items() if name not in self._lost}

    def _start(self, count: int | Literal["auto"], cpus: float, joining: Joining | None) -> None:
        import ray

        handler = signal.getsignal(signal.SIGTERM)
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "namespace": NAMESPACE}
        try:
            if joining is not None:
                ray.init(address=joining.address, **quiet, runtime_env=_normal_priority())
                return
            wanted = 0 if count == "auto" else math.ceil(count * cpus)
            # The paths of Ray's sockets must stay below some 100 characters, which TMPDIR may not.
            self._folder = ScratchFolder(_short_folder())
            ray.init(
                address="local",
                num_cpus=max(wanted, _cores()),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=str(self._folder.path),
                **quiet,
            )
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            self.close()
            reason = " ".join(str(error).split())
            if joining is not None:
                where = joining.address
                raise UserError(f"cannot join the Ray cluster at {where}: {reason}") from None
            raise EvomergeError(f"Ray cannot start: {reason}") from None
        finally:
            # Ray answers SIGTERM with a stack trace; the campaign's driver has a better answer.
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)


def _normal_priority() -> dict[str, Any]:
    """What a joined cluster's workers must be told, as its nodes were started without `_QUIET`."""
    niceness = "RAY_worker_niceness"
    return {"env_vars": {niceness: os.environ.get(niceness, _QUIET[niceness])}}


@cache
def _token() -> str:
    return secrets.token_hex(32)


def _private_token() -> dict[str, str]:
    """Let a Ray of our own use a token of its own; Ray would leave one in the user's home.

    Ray reads a token once a process: where somebody imported it before, theirs is used.
    """
    ours = _token.cache_info().currsize > 0
    if "ray" in sys.modules and not ours:
        return {}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()}


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for Ray and the processes it starts, where the user has not set them."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


def _short_folder() -> Path:
    return Path("/tmp" if os.access("/tmp", os.W_OK) else tempfile.gettempdir())


def _cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
