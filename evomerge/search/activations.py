"""Statistics of the experts' activations, taken once a campaign, before anything is merged by them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import xxhash

from evomerge.candidate.activations import ActivationsFound, ActivationsJob
from evomerge.candidate.recipe import STATISTICS
from evomerge.candidate.trial import Entry
from evomerge.errors import CampaignStopped, ResultsError
from evomerge.merge.statistics import Statistics, add_statistics, write_statistics
from evomerge.progress import Pace
from evomerge.search.bench import Bench
from evomerge.store.folder import write_whole
from evomerge.workers.pool import in_turn

DIGEST = "statistics"
"""Under which key a store keeps the digest of the file; of several what it was before experts joined, too."""
PLACES = "places of statistics"
"""Under which key a store keeps the experts' places in it, once one joined."""


def take_statistics(bench: Bench, experts: Sequence[Entry], reads: Collection[str]) -> None:
    """Let each expert read its search prompts and write what methods read of it, unless that is there.

    Its prompts are those of the tasks that it is the teacher of; those of all tasks where there is none. A
    file of the user's is copied in their place.

    Args:
        bench: Of the campaign.
        experts: In the order of the campaign.
        reads: What methods read (`Parameter.reads`); nothing: nothing is done.

    Raises:
        CampaignStopped: An expert cannot read.
        ResultsError: The file is not what it was.
        EvomergeError: The disk is full or not writable.
    """
    if not reads:
        return
    path, arrays = bench.store.folder / STATISTICS, bench.store.arrays
    if not (arrays.has(DIGEST) and path.is_file()):
        given = bench.campaign.statistics
        if given is not None:
            write_whole(path, Path(given).read_bytes())
        else:
            found = _taken(bench, experts, moments="moment" in reads)
            write_statistics(path, [(one.squares, one.moments) for one in found])
    digest = _digest(path)
    if not arrays.has(DIGEST):
        arrays.keep(DIGEST, digest)
    elif digest not in arrays.get(DIGEST).split():
        message = "is not what the campaign began with; bring it back, or start a new campaign"
        raise ResultsError(message, file=path)


def join_statistics(
    bench: Bench, expert: Entry, reads: Collection[str], places: Mapping[str, int]
) -> int:
    """Let an expert that joins a campaign read, and add its statistics to the campaign's.

    Args:
        bench: Of the campaign with that expert.
        expert: Who joins.
        reads: As of `take_statistics`.
        places: In the file, of the models that the campaign began with.

    Returns:
        Its place in the file; of one that left earlier the one that it had.

    Raises:
        CampaignStopped: It cannot read.
        UserError: The file is missing or damaged.
        EvomergeError: The disk is full or not writable.
    """
    store, model = bench.store, expert.candidate.model_names()[-1]
    path, arrays = store.folder / STATISTICS, store.arrays
    known: dict[str, int] = {
        **places,
        **(json.loads(arrays.get(PLACES)) if arrays.has(PLACES) else {}),
    }
    there = Statistics(path).holds
    if known.get(model) in there:
        return known[model]
    (found,) = _taken(bench, [expert], moments="moment" in reads)
    place = max(there) + 1

    def record(file: Path) -> None:
        with (
            store.together()
        ):  # a process that is killed here has a file as it was, which is known, too
            arrays.keep(DIGEST, b" ".join([arrays.get(DIGEST), _digest(file)]))
            arrays.keep(PLACES, json.dumps({**known, model: place}).encode())

    add_statistics(path, place, found.squares, found.moments, record)
    return place


def _taken(bench: Bench, experts: Sequence[Entry], *, moments: bool) -> list[ActivationsFound]:
    goals = bench.campaign.objectives
    jobs = [
        ActivationsJob(
            f'statistics of "{one.name}"',
            one.candidate,
            tuple(goal.task for goal in goals if goal.teacher == one.name),
            moments,
        )
        for one in experts
    ]
    pace = Pace(bench.display, "statistics of the experts", len(jobs))
    found: dict[str, ActivationsFound] = {}
    for job, answer in in_turn(bench.pool, jobs):
        assert isinstance(job, ActivationsJob)
        assert isinstance(answer, ActivationsFound)
        if answer.failure is not None:
            raise CampaignStopped(f"{job.name}: {answer.failure.reason}")
        found[job.name] = answer
        pace.step()
    return [found[job.name] for job in jobs]


def _digest(path: Path) -> bytes:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(1 << 24):
            digest.update(piece)
    return digest.hexdigest().encode()
