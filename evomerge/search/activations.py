"""Statistics of the experts' activations, taken once a campaign, before anything is merged by them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import xxhash

from evomerge.candidate.activations import ActivationsFound, ActivationsJob
from evomerge.candidate.recipe import STATISTICS
from evomerge.candidate.trial import Entry
from evomerge.errors import CampaignStopped, ResultsError
from evomerge.merge.statistics import write_statistics
from evomerge.progress import Pace
from evomerge.search.bench import Bench
from evomerge.store.folder import write_whole
from evomerge.workers.pool import in_turn

DIGEST = "statistics"
"""Under which key a store keeps the digest of the file."""


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
    elif arrays.get(DIGEST) != digest:
        message = "is not what the campaign began with; bring it back, or start a new campaign"
        raise ResultsError(message, file=path)


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
