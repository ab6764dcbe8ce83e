"""Run the search spaces that ship with the project, and keep their reports in `results/reports`.

    python -m benchmarks.search_spaces [NAME...] [--workers N] [--work DIR]

Without names: every one whose models are the zoo's. Of each it keeps NAME.md and NAME.json, the leaderboard,
and NAME.svg, the best so far over the search. A campaign that was begun in the work folder goes on there.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import evomerge
from evomerge.config import Campaign
from evomerge.report.images import write_image
from evomerge.report.material import Material
from evomerge.store import Store

ROOT = Path(__file__).parents[1]
SPACES = ROOT / "search_spaces"
REPORTS = ROOT / "results" / "reports"
WORK = ROOT / "results" / "search_spaces"


def names() -> list[str]:
    """Return the search spaces whose models are all of the zoo."""
    found = []
    for file in sorted(SPACES.glob("*.yaml")):
        models = Campaign.load(file).models
        every = [models.base, *(expert.model for expert in models.experts)]
        if all(name.startswith("zoo:") for name in every):
            found.append(file.stem)
    return found


def run(name: str, work: Path, workers: int | None) -> evomerge.Result:
    """Run or go on with the campaign of a search space in `work/NAME`."""
    folder = work / name
    if (folder / "study.db").is_file():
        return evomerge.resume(folder, workers=workers, display="plain")
    return evomerge.search(SPACES / f"{name}.yaml", out=folder, workers=workers, display="plain")


def keep(name: str, result: evomerge.Result, reports: Path = REPORTS) -> None:
    """Copy a finished campaign's reports, and draw its search."""
    reports.mkdir(parents=True, exist_ok=True)
    for ending in ("md", "json"):
        shutil.copyfile(result.folder / f"leaderboard.{ending}", reports / f"{name}.{ending}")
    with Store.open(result.folder, write=False) as store:
        write_image(Material.of(store), reports / f"{name}.svg", "history")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="of search spaces; none: the zoo's"
    )
    parser.add_argument("--workers", type=int, help="None: as each campaign says")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the campaigns")
    options = parser.parse_args(arguments)
    for name in options.names or names():
        keep(name, run(name, options.work, options.workers))


if __name__ == "__main__":
    main()
