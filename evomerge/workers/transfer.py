"""Folders that the driver has and a node lacks: sent through Ray, once a node.

Models and tasks are named as the driver names them; of a Hub id a node takes the driver's commit. A node
on which a name leads nowhere, or to other files, gets a copy under its temporary folder, named by
its content, so that it is kept for the next campaign; all workers of the node map that one copy into memory.
Recipes go on naming what the driver names: `Translated` stands between.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xxhash
from filelock import FileLock

from evomerge.candidate.activations import ActivationsFound, ActivationsJob
from evomerge.candidate.states import StatesFound, StatesJob
from evomerge.candidate.trial import (
    GradientJob,
    Gradients,
    Job,
    Jobs,
    Outcome,
    Outcomes,
    TargetJob,
    TargetsFound,
)
from evomerge.candidate.writing import WriteJob, Written
from evomerge.config.model_names import by_part, is_folder
from evomerge.errors import EvomergeError, ModelError
from evomerge.workers.pool import Evaluates

CHUNK = 16 * 2**20
"""Bytes that travel at once."""
NAMESPACE = "evomerge"
HOME = "evomerge-models"

Listing = tuple[tuple[str, int], ...]
"""Relative path and size of every file, sorted."""
Locate = Callable[[str], Path]


@dataclass(frozen=True)
class Transfer:
    """What the driver can send.

    Attributes:
        name: Under which workers find it.
        folders: Models, parts of `MODEL+ADAPTER` apart, and folders of tasks.
        trust_remote_code: Send Python files of models, too.
        allow_pickle: Send PyTorch pickles, too.
    """

    name: str
    folders: tuple[str, ...]
    trust_remote_code: bool = False
    allow_pickle: bool = False

    def locate(self, folder: str) -> Path:
        """Return where a folder is on this machine; ModelError: it is not here."""
        from evomerge.merge.location import locate

        return locate(
            folder, allow_pickle=self.allow_pickle, trust_remote_code=self.trust_remote_code
        )


class Reader:
    """What runs on the driver's node and reads its files."""

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer

    def pinned(self, folder: str) -> str:
        """Return a folder's name; of a Hub id with the commit that the driver has of it."""
        from evomerge.merge.location import commit

        try:
            place = self._transfer.locate(folder)
        except ModelError:
            return folder
        of_hub = commit(folder, place)
        return folder if of_hub is None else f"{folder.partition('@')[0]}@{of_hub}"

    def listing(self, folder: str) -> Listing | None:
        """Return a folder's files; None: the driver has no such folder."""
        if folder not in self._transfer.folders:
            return None
        try:
            return listing(self._transfer.locate(folder))
        except ModelError:
            return None

    def sampled(self, folder: str) -> str:
        """Return a hash of all names, and bytes sampled from each file of a folder."""
        return sampled(self._transfer.locate(folder))

    def digest(self, folder: str) -> str:
        """Return a hash of all names and bytes of a folder."""
        return digest(self._transfer.locate(folder))

    def chunk(self, folder: str, file: str, start: int) -> bytes:
        """Return some bytes of one of the listed files."""
        place = self._transfer.locate(folder)
        if file not in dict(listing(place)):
            raise ValueError(f"{file} is not on the transfer")
        with (place / file).open("rb") as opened:
            opened.seek(start)
            return opened.read(CHUNK)


def start_transfer(transfer: Transfer) -> Any:  # noqa: ANN401 - a Ray actor
    """Start the reader beside the driver."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return (
        ray.remote(Reader)
        .options(name=transfer.name, namespace=NAMESPACE, num_cpus=0, scheduling_strategy=here)
        .remote(transfer)
    )


def local_names(transfer: Transfer) -> dict[str, str]:
    """Return what a worker's node calls the folders, where it is not what the driver calls them.

    Folders that the node lacks are fetched; one worker fetches, the others wait.

    Raises:
        ModelError: Neither this node nor the driver has a folder.
    """
    import ray

    reader = ray.get_actor(transfer.name, namespace=NAMESPACE)

    def ask(method: str, *arguments: object) -> Any:  # noqa: ANN401 - whatever the method returns
        return ray.get(getattr(reader, method).remote(*arguments))

    found = {name: fetched(name, transfer.locate, ask) for name in transfer.folders}
    return {name: str(place) for name, place in found.items() if place is not None}


def fetched(
    folder: str, locate: Locate, ask: Callable[..., Any], home: Path | None = None
) -> Path | None:
    """Fetch a folder unless this node has it.

    Args:
        folder: The driver's name for it.
        locate: Finds it here.
        ask: Asks the driver's reader: method, arguments.
        home: Where copies are kept.

    Returns:
        Where it is; None: the driver's name leads to the same files here.

    Raises:
        ModelError: Neither this node nor the driver has it.
    """
    theirs, pinned = ask("listing", folder), ask("pinned", folder)
    try:
        place = locate(pinned)
    except ModelError:
        if theirs is None:
            raise
    else:
        own = None if pinned == folder else place
        if theirs is None:
            return own
        if listing(place) == theirs and (own or sampled(place) == ask("sampled", folder)):
            return own
    home = home or private_folder()
    content: str = ask("digest", folder)
    place = home / content
    with FileLock(home / f"{content}.lock"):
        if not place.exists():
            _copy(folder, theirs, content, ask, place)
    return place


def listing(folder: Path) -> Listing:
    """List a folder's files: sorted relative paths, and sizes; hidden files and caches apart."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return tuple(
        (path.as_posix(), (folder / path).stat().st_size)
        for path in sorted(paths)
        if not any(part.startswith(".") or part == "__pycache__" for part in path.parts)
    )


def sampled(folder: Path) -> str:
    """Return a hash of all names that `listing` names, and bytes sampled from each of the files."""
    from evomerge.merge.sampled import sample

    state = xxhash.xxh3_128()
    for name, _ in listing(folder):
        state.update(f"{name}\0".encode())
        sample(state, folder / name)
    return state.hexdigest()


def digest(folder: Path) -> str:
    """Return a hash of all names and bytes that `listing` names."""
    state = xxhash.xxh3_128()
    for name, size in listing(folder):
        state.update(f"{name}\0{size}\0".encode())
        with (folder / name).open("rb") as file:
            while chunk := file.read(CHUNK):
                state.update(chunk)
    return state.hexdigest()


def private_folder() -> Path:
    """Return this user's folder for copies, which no other user may write to.

    Raises:
        EvomergeError: Somebody else made it.
    """
    home = Path(tempfile.gettempdir()) / f"{HOME}-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    status = home.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022 or home.is_symlink():
        raise EvomergeError(f"{home}: belongs to somebody else; remove it")
    return home


def _copy(
    folder: str,
    files: Iterable[tuple[str, int]],
    content: str,
    ask: Callable[..., Any],
    place: Path,
) -> None:
    with tempfile.TemporaryDirectory(prefix=f"{content}.new-", dir=place.parent) as temporary:
        aside = Path(temporary) / content
        for name, size in files:
            path = aside / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for start in range(0, size, CHUNK):
                    file.write(ask("chunk", folder, name, start))
        if digest(aside) != content:
            raise ModelError("changed while it was sent to a node", file=folder)
        aside.rename(place)


def local_model(names: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that renames a model, or model and adapter each, as `names` says.

    A folder that is named there need not be one here, and its own name may have a plus.
    """
    return by_part(
        lambda part: names.get(part, part), lambda part: part in names or is_folder(part)
    )


class Translated:
    """An evaluator that finds models under other names than candidates do.

    Args:
        evaluator: Knows the local names.
        names: The driver's name → the local name.
    """

    def __init__(self, evaluator: Evaluates, names: Mapping[str, str]) -> None:
        self._evaluator, self._local = evaluator, local_model(names)

    def evaluate(self, job: Job) -> Outcome:
        """Evaluate under local names."""
        return self._evaluator.evaluate(self._renamed(job))

    def together(self, jobs: Jobs) -> Outcomes:
        """Evaluate several under local names."""
        return self._evaluator.together(Jobs(tuple(map(self._renamed, jobs.each))))

    def gradient(self, job: GradientJob) -> Gradients:
        """Take a gradient under local names."""
        return self._evaluator.gradient(replace(job, candidate=job.candidate.renamed(self._local)))

    def targets(self, job: TargetJob) -> TargetsFound:
        """Let a teacher speak under its local name."""
        return self._evaluator.targets(replace(job, candidate=job.candidate.renamed(self._local)))

    def write(self, job: WriteJob) -> Written:
        """Continue prompts under local names."""
        return self._evaluator.write(replace(job, candidate=job.candidate.renamed(self._local)))

    def states(self, job: StatesJob) -> StatesFound:
        """Compare hidden states under local names."""
        models = {name: one.renamed(self._local) for name, one in job.models.items()}
        return self._evaluator.states(replace(job, models=models))

    def activations(self, job: ActivationsJob) -> ActivationsFound:
        """Take statistics under local names."""
        return self._evaluator.activations(job.renamed(self._local))

    def _renamed(self, job: Job) -> Job:
        candidate = job.entry.candidate.renamed(self._local)
        return replace(job, entry=replace(job.entry, candidate=candidate))
