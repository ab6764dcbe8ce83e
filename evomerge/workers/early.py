"""A Ray pool that starts beside other work of the driver."""

from __future__ import annotations

import threading
from collections.abc import Callable

from evomerge.workers.ray_pool import RayPool


class EarlyPool:
    """A pool that is started in a thread; `take` waits for it. Close it: it is a context manager.

    Ray's processes die with the thread that started them, so that one stays until `close`.

    Args:
        start: Starts the pool.
    """

    def __init__(self, start: Callable[[], RayPool]) -> None:
        self._start = start
        self._pool: RayPool | None = None
        self._error: BaseException | None = None
        self._taken = False
        self._started, self._over = threading.Event(), threading.Event()
        # Not one of a pool of threads: the interpreter would wait for it.
        thread = threading.Thread(target=self._run, name="evomerge-ray", daemon=True)
        thread.start()

    def check(self) -> None:
        """Wait until it has started.

        Raises:
            EvomergeError: It cannot start, for the reason that `RayPool` gives.
        """
        self._started.wait()
        if self._pool is None:
            assert self._error is not None
            raise self._error

    def take(self) -> RayPool:
        """Return the pool, which the caller closes from now on, before this one.

        Raises:
            EvomergeError: As of `check`.
        """
        self.check()
        assert self._pool is not None
        self._taken = True
        return self._pool

    def close(self) -> None:
        """Stop what was started, unless it was taken; harmless when called again."""
        self._started.wait()
        if self._pool is not None and not self._taken:
            self._pool.close(force=True)
        self._over.set()

    def __enter__(self) -> EarlyPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        try:
            self._pool = self._start()
        except BaseException as error:  # noqa: BLE001 - raised where it is taken
            self._error = error
        self._started.set()
        self._over.wait()
