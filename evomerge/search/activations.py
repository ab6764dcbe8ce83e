"""Statistics of the experts' activations, taken once a campaign, before anything is merged by them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import xxhash

from evomerge.candidate import Merge
from evomerge.candidate.activations import ActivationsFound, ActivationsJob
from evomerge.candidate.recipe import STATISTICS
from evomerge.candidate.tables import Array
from evomerge.candidate.trial import Entry
from evomerge.errors import CampaignStopped, ResultsError, UserError
from evomerge.merge.statistics import Statistics, add_statistics, write_statistics
from evomerge.progress import Pace
from evomerge.search.bench import Bench
from evomerge.store.folder import write_whole
from evomerge.workers.pool import in_turn

DIGEST = "statistics"
"""Under which key a store keeps the digest of the file; of several what it was before experts joined, too."""
PLACES = "places of statistics"
"""Under which key a store keeps the experts' places in it, once one joined."""
TOGETHER = "statistics of the merge"
"""What messages call the job that reads layers of all experts."""


def take_statistics(
    bench: Bench, experts: Sequence[Entry], reads: Collection[str], merge: Merge
) -> None:
    """Let each expert read its search prompts and write what methods read of it, unless that is there.

    Its prompts are those of the tasks that it is the teacher of; those of all tasks where there is none. A
    file of the user's is copied in their place.

    Args:
        bench: Of the campaign.
        experts: In the order of the campaign.
        reads: What methods read (`Parameter.reads`); nothing: nothing is done.
        merge: Of the experts, whose layers they are to read where that is asked for.

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
            write_statistics(path, _taken(bench, experts, reads, merge))
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
        UserError: What is read of the others would change with it, or the file is missing or damaged.
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
    if "merged" in reads:
        raise UserError(
            "merged_features: the experts' statistics are of a merge of all, so that none can join; start a "
            "new campaign with it",
            file=path,
        )
    ((squares, moments, _),) = _taken(bench, [expert], reads)
    place = max(there) + 1

    def record(file: Path) -> None:
        with (
            store.together()
        ):  # a process that is killed here has a file as it was, which is known, too
            arrays.keep(DIGEST, b" ".join([arrays.get(DIGEST), _digest(file)]))
            arrays.keep(PLACES, json.dumps({**known, model: place}).encode())

    add_statistics(path, place, squares, moments, record)
    return place


def _taken(
    bench: Bench, experts: Sequence[Entry], reads: Collection[str], merge: Merge | None = None
) -> list[tuple[Mapping[str, Array], Mapping[str, Array], Mapping[str, Array]]]:
    """Return of each expert importances, moments, and where it is asked for those in the merge."""
    jobs = [_job(bench, one, "moment" in reads) for one in experts]
    asked = jobs if {*reads} != {"merged"} else []
    if merge is not None and "merged" in reads:
        asked = [ActivationsJob(TOGETHER, merge, experts=tuple(jobs)), *asked]
    pace = Pace(bench.display, "statistics of the experts", len(asked))
    found: dict[str, ActivationsFound] = {}
    for job, answer in in_turn(bench.pool, asked):
        assert isinstance(job, ActivationsJob)
        assert isinstance(answer, ActivationsFound)
        if answer.failure is not None:
            raise CampaignStopped(f"{job.name}: {answer.failure.reason}")
        found[job.name] = answer
        pace.step()
    of_all = found.get(TOGETHER, ActivationsFound(merged=({},) * len(jobs)))
    own = [found.get(job.name, ActivationsFound()) for job in jobs]
    return [(one.squares, one.moments, more) for one, more in zip(own, of_all.merged, strict=True)]


def _job(bench: Bench, expert: Entry, moments: bool) -> ActivationsJob:
    goals = bench.campaign.objectives
    tasks = tuple(goal.task for goal in goals if goal.teacher == expert.name)
    assert isinstance(expert.candidate, Merge)  # a parent
    return ActivationsJob(f'statistics of "{expert.name}"', expert.candidate, tasks, moments)


def _digest(path: Path) -> bytes:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(1 << 24):
            digest.update(piece)
    return digest.hexdigest().encode()
