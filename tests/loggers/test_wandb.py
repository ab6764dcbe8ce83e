from __future__ import annotations

import json
import struct
import time

import pytest

from evomerge.loggers.wandb import WandbLogger
from evomerge.testing.loggers import LoggerSuite

internal = pytest.importorskip("wandb.proto.wandb_internal_pb2")

BLOCK, PREFIX, HEADER = 2**15, 7, struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(content: bytes):
    """Give the records of an offline run's file, which is a log of LevelDB's behind 7 bytes."""
    place, parts = PREFIX, []
    while place + HEADER.size <= len(content):
        if BLOCK - place % BLOCK < HEADER.size:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(content, place)
        assert kind in (FULL, FIRST, MIDDLE, LAST)
        place += HEADER.size
        if place + length > len(content):
            return  # still being written
        parts.append(content[place : place + length])
        place += length
        if kind in (FULL, LAST):
            record = internal.Record()
            record.ParseFromString(b"".join(parts))
            parts.clear()
            yield record


def records_of_ended(file):
    """Wait for the record that ends a run: W&B's process writes its file on after `finish`."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = list(records(file.read_bytes()))
        if any(record.HasField("exit") for record in found):
            return found
        time.sleep(0.1)
    pytest.fail(f"{file} has no end")


class TestWandb(LoggerSuite):
    @pytest.fixture(autouse=True)
    def _own_settings(self, monkeypatch):
        for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_API_KEY"):
            monkeypatch.delenv(name, raising=False)

    @pytest.fixture
    def kind(self):
        return WandbLogger

    @pytest.fixture
    def options(self):
        return {"project": "merges", "group": "tests"}

    @pytest.fixture
    def read(self):
        def read(run):
            found, summary = {}, {}
            for file in sorted(run.folder.glob("wandb/offline-run-*/*.wandb")):
                for record in records_of_ended(file):
                    for item in record.history.item:
                        found.setdefault(name_of(item), []).append(json.loads(item.value_json))
                    for item in record.summary.update:  # of what is no history: the last of each
                        summary[name_of(item)] = [json.loads(item.value_json)]
                board = file.parent / "files" / "leaderboard.md"
                assert board.exists() == any(name.startswith("winner/") for name in summary)
            return summary | found

        return read


def name_of(item):
    return "/".join(item.nested_key) or item.key
