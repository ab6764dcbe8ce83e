"""Results in an object store: what is copied, skipped, verified and refused."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from optuna.distributions import FloatDistribution

import evomerge
from evomerge.api import object_store
from evomerge.candidate import Merge
from evomerge.candidate.trial import Entry, Estimate, Outcome, TaskScores
from evomerge.cli import run_command
from evomerge.config import Campaign
from evomerge.errors import EvomergeError, ResultsError, UserError
from evomerge.store import Store
from tests.small_campaign import TEXT


class Checked(MemoryFileSystem):
    """A store that gives checksums as Google's does, and damages what is called so."""

    protocol = "checked"
    store: ClassVar = {}
    pseudo_dirs: ClassVar = [""]

    def info(self, path, **options):
        found = super().info(path, **options)
        if found["type"] == "file":
            digest = hashlib.md5(self.cat_file(path)).digest()
            found["md5Hash"] = base64.b64encode(digest).decode()
        return found

    def find(self, path, **options):
        return {name: self.info(name) for name in super().find(path)}

    def put_file(self, lpath, rpath, **options):
        content = Path(lpath).read_bytes()
        self.pipe_file(rpath, content[::-1] if "damaged" in rpath else content)


fsspec.register_implementation("checked", Checked, clobber=True)


@pytest.fixture(autouse=True)
def _empty():
    for kind in (MemoryFileSystem, Checked):
        kind.store.clear()
        kind.pseudo_dirs[:] = [""]


@pytest.fixture
def results(tmp_path):
    """A campaign that runs: the store is open, with one trial; a model and a leaderboard lie beside."""
    (tmp_path / "c.yaml").write_text(TEXT)
    campaign = Campaign.load(tmp_path / "c.yaml")
    with Store.create(tmp_path / "out", campaign, {}, directions=["maximize"]) as store:
        told(store, 0)
        (store.folder / "best").mkdir()
        (store.folder / "best/config.json").write_text("{}")
        (store.folder / "best/.hidden").write_text("kept")
        (store.folder / "leaderboard.json").write_text("{}")
        (store.folder / ".best.half").mkdir()
        (store.folder / "notes.txt").write_text("of the user's")
        yield store


def told(store, number):
    entry = Entry(f"trial {number}", Merge("linear", ("/m/one",)), number)
    store.asked(entry, {"w": 0.5}, {"w": FloatDistribution(0.0, 1.0)})
    scores = {"one": TaskScores(("0",), {"acc": (1.0,)}, {"acc": Estimate(1.0)})}
    store.told(entry, Outcome(scores), [float(number)])


def found(url):
    store, root = fsspec.core.url_to_fs(url)
    return {name.removeprefix(f"{root}/") for name in store.find(root)}


@pytest.mark.parametrize("scheme", ["memory", "checked", "file"])
def test_a_running_campaign_is_copied_whole_and_opens_again(results, scheme, tmp_path):
    url = f"file://{tmp_path}/copy/here" if scheme == "file" else f"{scheme}://copy/here"
    done = evomerge.export(results.folder, url)
    names = {"best/.hidden", "best/config.json", "campaign.yaml", "leaderboard.json", "study.db"}
    assert set(done.copied) == found(url) == names
    assert done.skipped == ()
    again = evomerge.export(results.folder, url)
    assert (again.copied, set(again.skipped)) == ((), names)
    store, root = fsspec.core.url_to_fs(url)
    store.get(root, str(tmp_path / "back"), recursive=True)
    with Store.open(tmp_path / "back", write=True) as opened:
        assert [trial.values for trial in opened.trials()] == [(0.0,)]


@pytest.mark.parametrize(
    ("only", "names"),
    [("best", {"best/.hidden", "best/config.json"}), ("report", {"leaderboard.json"})],
)
def test_a_part(results, only, names):
    assert set(evomerge.export(results.folder, "memory://part", only=only).copied) == names
    assert found("memory://part") == names


@pytest.mark.parametrize("scheme", ["memory", "checked"])
def test_what_differs_is_overwritten_by_force_only_and_nothing_is_deleted(results, scheme, capfd):
    url = f"{scheme}://copy"
    evomerge.export(results.folder, url)
    store, root = fsspec.core.url_to_fs(url)
    store.pipe_file(f"{root}/other", b"stays")
    told(results, 1)
    (results.folder / "leaderboard.json").write_text("[]")  # of the same size
    with pytest.raises(
        UserError, match=r"other contents of leaderboard\.json, study\.db; .*--force"
    ):
        evomerge.export(results.folder, url)
    assert run_command(["export", str(results.folder), url, "--force", "--display", "plain"]) == 0
    out, shown = capfd.readouterr()
    assert out == f"{url}: 2 files copied, 3 were there\n"
    assert "overwriting leaderboard.json, study.db\n" in shown
    assert "export: 2 of 2" in shown
    assert "other" in found(url)


def test_an_export_that_was_interrupted_goes_on(results, monkeypatch):
    put = MemoryFileSystem.put_file

    def interrupted(self, lpath, rpath, **options):
        if rpath.endswith("study.db"):
            raise KeyboardInterrupt
        put(self, lpath, rpath, **options)

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "put_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evomerge.export(results.folder, "memory://copy")
    done = evomerge.export(results.folder, "memory://copy")
    assert done.copied == ("study.db",)
    assert len(done.skipped) == 4


def test_without_checksums_what_is_older_is_copied_again_only_where_it_is_too_large_to_be_read(
    results, monkeypatch
):
    board = results.folder / "leaderboard.json"
    for scheme in ("memory", "checked"):
        evomerge.export(results.folder, f"{scheme}://copy", only="report")
    os.utime(board, (2**31, 2**31))
    for scheme in ("memory", "checked"):
        assert evomerge.export(results.folder, f"{scheme}://copy", only="report").copied == ()
    monkeypatch.setattr(object_store, "READ", board.stat().st_size - 1)
    with pytest.raises(UserError, match="leaderboard"):
        evomerge.export(results.folder, "memory://copy", only="report")
    assert evomerge.export(results.folder, "checked://copy", only="report").copied == ()
    os.utime(board, (0, 0))
    assert evomerge.export(results.folder, "memory://copy", only="report").copied == ()


def test_what_was_changed_before_its_copy_was_complete_is_no_copy(results):
    evomerge.export(results.folder, "memory://copy", only="report")
    board = results.folder / "leaderboard.json"
    board.write_text("[]")
    os.utime(board, (0, 0))  # as a change within one tick of the clock
    with pytest.raises(UserError, match=r"other contents of leaderboard\.json"):
        evomerge.export(results.folder, "memory://copy", only="report")


def test_a_copy_with_another_checksum_is_an_error(results):
    with pytest.raises(EvomergeError, match="has another checksum after the copy"):
        evomerge.export(results.folder, "checked://damaged")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("bucket/name", 'URL: found "bucket/name", expected an address such as s3://BUCKET/NAME'),
        ("s4://bucket", 'URL: found "s4://bucket", expected an address such as s3://BUCKET/NAME'),
        ("oss://bucket", "oss://bucket: needs ossfs; install it with: pip install ossfs"),
    ],
)
def test_wrong_addresses_are_one_line(results, url, message, capsys):
    assert run_command(["export", str(results.folder), url]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "message", "status"),
    [
        (FileNotFoundError("The specified bucket does not exist"), "no such bucket or folder", 2),
        (PermissionError("InvalidAccessKeyId"), r"access denied \(InvalidAccessKeyId\)", 2),
        (RuntimeError("Unable to locate credentials"), "no credentials", 2),
        (TimeoutError("60 s\nare over"), "the export failed: 60 s are over", 1),
    ],
)
def test_what_a_store_refuses_is_one_line(results, error, message, status, monkeypatch):
    def refused(self, *args, **options):
        raise error

    monkeypatch.setattr(MemoryFileSystem, "put_file", refused)
    with pytest.raises(EvomergeError, match=message) as caught:
        evomerge.export(results.folder, "memory://copy")
    assert isinstance(caught.value, UserError) == (status == 2)
    assert "\n" not in str(caught.value)


def test_results_that_are_not_there(results, tmp_path):
    with pytest.raises(ResultsError, match=r"none: no such folder; expected a results folder"):
        evomerge.export(tmp_path / "none", "memory://copy")
    with pytest.raises(ResultsError, match="holds no campaign"):
        evomerge.export(tmp_path, "memory://copy")
    (results.folder / "leaderboard.json").unlink()
    with pytest.raises(ResultsError, match=r"holds no report yet; finish it with `evomerge resume"):
        evomerge.export(results.folder, "memory://copy", only="report")
