from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evomerge.candidate import Merge
from evomerge.candidate.activations import ActivationsFound, ActivationsJob
from evomerge.candidate.trial import (
    Entry,
    GradientJob,
    Gradients,
    Job,
    Outcome,
    TargetJob,
    TargetsFound,
)
from evomerge.candidate.writing import WriteJob, Written
from evomerge.errors import EvomergeError, ModelError
from evomerge.workers import transfer as transfers
from evomerge.workers.transfer import Reader, Transfer, Translated, digest, fetched, listing


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "part").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "part" / "weights").write_bytes(bytes(range(256)) * 100)
    (folder / "empty").touch()
    (folder / ".git").mkdir()
    (folder / ".git" / "index").write_text("no part of it")
    return folder


class Asked:
    """The driver's reader, asked without Ray; counts what it was asked."""

    def __init__(self, *folders: str) -> None:
        self.reader, self.methods = Reader(Transfer("s", folders)), list[str]()

    def __call__(self, method: str, *arguments: Any) -> Any:
        self.methods.append(method)
        return getattr(self.reader, method)(*arguments)


def nowhere(folder: str) -> Path:
    raise ModelError("no such folder", file=folder)


def test_a_node_that_lacks_a_model_gets_it_once(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "CHUNK", 1000)
    ask, home = Asked(str(model)), tmp_path / "home"
    home.mkdir()
    copy = fetched(str(model), nowhere, ask, home)
    assert copy is not None
    assert (
        listing(copy)
        == listing(model)
        == (
            ("config.json", 2),
            ("empty", 0),
            ("part/weights", 25600),
        )
    )
    assert (copy / "part" / "weights").read_bytes() == (model / "part" / "weights").read_bytes()
    assert ask.methods.count("chunk") == 27
    assert copy.name == digest(model)
    assert fetched(str(model), nowhere, ask, home) == copy
    assert ask.methods.count("chunk") == 27
    assert {path.suffix for path in home.iterdir()} == {"", ".lock"}


def test_a_node_that_has_the_same_files_keeps_to_them(tmp_path: Path, model: Path) -> None:
    ask = Asked(str(model))
    assert fetched(str(model), lambda _: model, ask, tmp_path) is None
    assert ask.methods == ["listing", "pinned", "sampled"]


def test_other_weights_of_the_same_size_are_not_used(tmp_path: Path, model: Path) -> None:
    old, home = tmp_path / "old", tmp_path / "home"
    shutil.copytree(model, old)
    home.mkdir()
    weights = bytearray((old / "part" / "weights").read_bytes())
    weights[-1] ^= 1
    (old / "part" / "weights").write_bytes(weights)
    assert listing(old) == listing(model)
    copy = fetched(str(model), lambda _: old, Asked(str(model)), home)
    assert copy is not None
    assert digest(copy) == digest(model)


def test_a_node_takes_the_drivers_commit_of_a_hub_id(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "c" * 40
    place = tmp_path / "models--org--name" / "snapshots" / commit
    place.parent.mkdir(parents=True)
    model.rename(place)
    monkeypatch.setattr(Transfer, "locate", lambda _self, _folder: place)
    asked: list[str] = []

    def locate(name: str) -> Path:
        asked.append(name)
        return place

    assert fetched("org/name", locate, Asked("org/name"), tmp_path) == place
    assert fetched("org/name@main", locate, Asked("org/name@main"), tmp_path) == place
    assert asked == [f"org/name@{commit}"] * 2


def test_files_of_other_sizes_under_the_same_name_are_not_used(tmp_path: Path, model: Path) -> None:
    old, home = tmp_path / "old", tmp_path / "home"
    old.mkdir()
    home.mkdir()
    (old / "config.json").write_text("{ }")
    assert fetched(str(model), lambda _: old, Asked(str(model)), home) is not None


def test_what_nobody_has_is_an_error_in_the_words_of_who_looked(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    with pytest.raises(ModelError, match="none: no such folder"):
        fetched(missing, nowhere, Asked(missing), tmp_path)


def test_the_reader_gives_nothing_that_is_not_on_the_transfer(model: Path, tmp_path: Path) -> None:
    reader = Reader(Transfer("s", (str(model),)))
    assert reader.listing(str(tmp_path)) is None
    for file in ("../secret", ".git/index", "/etc/passwd"):
        with pytest.raises(ValueError, match="not on the transfer"):
            reader.chunk(str(model), file, 0)


def test_a_copy_that_differs_is_thrown_away(tmp_path: Path, model: Path) -> None:
    ask, home = Asked(str(model)), tmp_path / "home"
    home.mkdir()

    def changing(method: str, *arguments: Any) -> Any:
        found = ask(method, *arguments)
        return found[::-1] if method == "chunk" else found

    with pytest.raises(ModelError, match="changed while it was sent"):
        fetched(str(model), nowhere, changing, home)
    assert [path.suffix for path in home.iterdir()] == [".lock"]


def test_a_folder_for_copies_that_others_may_write_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers.tempfile, "gettempdir", lambda: str(tmp_path))
    home = transfers.private_folder()
    assert home == transfers.private_folder()
    home.chmod(0o777)
    with pytest.raises(EvomergeError, match="belongs to somebody else"):
        transfers.private_folder()


class Echo:
    def evaluate(self, job: Job) -> Outcome:
        return Outcome(worker=",".join(job.entry.candidate.model_names()))

    def gradient(self, job: GradientJob) -> Gradients:
        names = job.candidate.model_names()
        return Gradients(worker=",".join(names))

    def targets(self, job: TargetJob) -> TargetsFound:
        return TargetsFound(worker=",".join(job.candidate.model_names()))

    def write(self, job: WriteJob) -> Written:
        return Written(worker=",".join(job.candidate.model_names()))

    def activations(self, job: ActivationsJob) -> ActivationsFound:
        jobs = (job, *job.experts)
        return ActivationsFound(
            worker=",".join(n for one in jobs for n in one.candidate.model_names())
        )


def test_candidates_are_built_under_local_names() -> None:
    evaluator = Translated(Echo(), {"/d/base": "/n/1", "/d/lora": "/n/2"})
    recipe = Merge("linear", ("/d/base+/d/lora", "org/x"), "/d/base")
    job = Job(Entry("trial 0", recipe, 0), "search")
    assert evaluator.evaluate(job).worker == "/n/1,/n/1+/n/2,org/x"
    gradients = evaluator.gradient(GradientJob("step", recipe, {}, {}))
    assert gradients.worker == "/n/1,/n/1+/n/2,org/x"
    assert evaluator.targets(TargetJob(recipe, "task")).worker == "/n/1,/n/1+/n/2,org/x"
    assert evaluator.write(WriteJob("w", recipe, (), 1)).worker == "/n/1,/n/1+/n/2,org/x"
    expert = ActivationsJob("b", Merge("passthrough", ("/d/base+/d/lora",)))
    sensed = evaluator.activations(ActivationsJob("a", recipe, experts=(expert,)))
    assert sensed.worker == "/n/1,/n/1+/n/2,org/x,/n/1+/n/2"
    assert replace(job) == job


def test_a_plus_in_a_folders_name_is_no_adapter_on_a_node() -> None:
    """Though the node has no such folder to look at."""
    evaluator = Translated(Echo(), {"/d/a+b": "/n/1", "/d/lora+x": "/n/2"})
    merge = Merge("linear", ("/d/a+b", "/d/a+b+/d/lora+x"))
    gradients = evaluator.gradient(GradientJob("step", merge, {}, {}))
    assert gradients.worker == "/n/1,/n/1+/n/2"
