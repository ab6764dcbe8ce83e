"""A disk that fills up, at ten points of a campaign.

    python -m benchmarks.faults.disk [--sampler cmaes]

A campaign of 60 trials on the zoo writes to a small file system of its own (this takes root), which has room
for a tenth of what the campaign needs, two tenths, and so on. Each time it stops with one line and exit
status 1; the database is sound; and when there is room, the campaign goes on to the same end as one that
was not interrupted. Exit status 1 if any of it fails.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from benchmarks.faults import _campaign
from benchmarks.faults.kills import TRIALS, compared, uninterrupted

DISK = 64 * 2**20
POINTS = 10
WRITE_AHEAD = 4 * 2**20
"""Most that SQLite's write-ahead log takes, which is gone in the end."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was done and whether it held; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sampler", default="cmaes")
    options = parser.parse_args(arguments)
    _campaign.preload()
    with tempfile.TemporaryDirectory(prefix="disk-") as name:
        folder = Path(name)
        uninterrupted(folder / "whole", options.sampler)
        results = (folder / "whole" / "out").rglob("*")
        need = sum(path.stat().st_size for path in results) + WRITE_AHEAD
        print(f"the campaign needs {need / 2**20:.1f} MiB", flush=True)
        found = [filled(folder, point, need, options.sampler) for point in range(POINTS)]
    print(json.dumps({"points": found}))
    return int(any(one["wrong"] for one in found))


def filled(folder: Path, point: int, need: int, sampler: str) -> dict[str, object]:
    """Run the campaign on a disk with room for some tenths of it, then make room and resume."""
    here, disk = folder / f"disk-{point}", folder / f"disk-{point}" / "disk"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(disk)], check=True)
    try:
        file = _campaign.write(here, sampler=sampler, trials=TRIALS, workers=0, out=disk / "out")
        ballast, log, out = disk / "ballast", here / "log", disk / "out"
        ballast.write_bytes(bytes(DISK - need * point // POINTS - 2**14))
        status = _campaign.wait(_campaign.start(["search", str(file)], log))
        says = log.with_suffix(".output").read_text()
        wrong = [] if status == 1 else [f"exit status {status}"]
        if not says.startswith("evomerge: ") or says.count("\n") != 1:
            wrong.append(f"says: {says[-1000:]}")
        ballast.unlink()
        again = ["search", str(file)]
        if (out / "study.db").exists():
            again = ["resume", str(out)]
            wrong += damage(out / "study.db")
        done = len(_campaign.told(out))
        if _campaign.wait(_campaign.start(again, log)):
            wrong.append(f"resume: {log.with_suffix('.output').read_text()[-1000:]}")
        wrong += compared(folder / "whole" / "out", out)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    print(f"{point} tenths: {done} trials, then: {says.strip()[-160:]}; wrong: {wrong}", flush=True)
    return {"tenths": point, "trials": done, "wrong": wrong}


def damage(database: Path) -> list[str]:
    """Return what SQLite finds wrong with a database."""
    with closing(sqlite3.connect(database)) as connection:
        try:
            found = connection.execute("PRAGMA integrity_check").fetchall()
        except sqlite3.DatabaseError as error:
            return [str(error)]
    return [str(row) for (row,) in found if row != "ok"]


if __name__ == "__main__":
    sys.exit(main())
