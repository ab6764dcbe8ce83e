"""Opens a campaign's loggers, and ends them with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

from evomerge.config import LoggerSettings
from evomerge.loggers import LOGGERS, Broadcast, Callback, LoggedRun
from evomerge.loggers.broadcast import Open
from evomerge.progress import Display
from evomerge.store import Store
from evomerge.store.folder import LOGGERS as FOLDER

RUN = "logged run"
"""Under which key a store keeps the id that loggers know it by."""


@contextmanager
def told(store: Store, callbacks: Sequence[Callback], display: Display) -> Iterator[Broadcast]:
    """Give what passes on all that happens in the block to the campaign's loggers and to callbacks.

    Args:
        store: Of the campaign, open for writing.
        callbacks: Others who are told.
        display: Is told of those that fail.
    """
    openers: dict[str, Open] = {
        f"logger {one.name}": partial(LOGGERS[one.name], _run_of(store, one), **one.options)
        for one in store.campaign.loggers
    }
    for place, callback in enumerate(callbacks):
        openers[f"callback {place} ({type(callback).__name__})"] = partial(_itself, callback)
    broadcast = Broadcast(openers, display)
    try:
        yield broadcast
    finally:
        broadcast.close()


def _run_of(store: Store, settings: LoggerSettings) -> LoggedRun:
    if not store.arrays.has(RUN):
        store.arrays.keep(RUN, uuid4().hex.encode())
    results = Path(store.folder).resolve()
    return LoggedRun(
        name=store.campaign.name,
        id=store.arrays.get(RUN).decode(),
        results=results,
        folder=Path(settings.folder or results / FOLDER / settings.name),
        settings=store.campaign.model_dump(mode="json", by_alias=True),
    )


def _itself(callback: Callback) -> Callback:
    return callback
