"""Creating and opening a store: which folders it takes, and what a failure leaves of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.distributions import FloatDistribution

from evomerge.candidate.trial import Entry
from evomerge.config import Campaign
from evomerge.errors import ResultsError
from evomerge.store import Store, folder

SPACE = {"w": FloatDistribution(0.0, 1.0)}
Make = Callable[..., Entry]


def ask(store: Store, candidate: Entry) -> None:
    store.asked(candidate, {"w": 0.5}, SPACE)


def test_an_existing_folder_is_refused_or_replaced(
    store: Store, campaign: Campaign, candidate: Make
) -> None:
    ask(store, candidate(0))
    (store.folder / "notes.txt").write_text("mine")
    store.close()
    with pytest.raises(ResultsError, match="the results folder exists"):
        Store.create(store.folder, campaign, {}, directions=["maximize"])
    with Store.create(store.folder, campaign, {}, directions=["maximize"], force=True) as new:
        assert new.trials() == ()
    assert (store.folder / "notes.txt").read_text() == "mine"


def test_a_second_writer_is_refused(store: Store, campaign: Campaign) -> None:
    with pytest.raises(ResultsError, match=f"process {os.getpid()}"):
        Store.open(store.folder, write=True)
    with pytest.raises(ResultsError, match=f"process {os.getpid()}"):
        Store.create(store.folder, campaign, {}, directions=["maximize"], force=True)


def test_a_changed_campaign_is_refused_by_field(store: Store) -> None:
    store.close()
    file = store.folder / "campaign.yaml"
    text = file.read_text()
    file.write_text(text.replace("high: 1.0", "high: 2.0"))
    with pytest.raises(ResultsError, match=r"space\.parameters\.weight\.high: was changed"):
        Store.open(store.folder, write=True)
    file.unlink()
    Store.open(store.folder, write=True).close()
    assert file.read_text() == text


@pytest.mark.parametrize("write", [True, False])
def test_no_campaign_no_store(tmp_path: Path, write: bool) -> None:
    with pytest.raises(ResultsError, match="no such folder"):
        Store.open(tmp_path / "none", write=write)
    with pytest.raises(ResultsError, match="holds no campaign"):
        Store.open(tmp_path, write=write)


def test_an_open_that_fails_frees_the_folder(store: Store) -> None:
    store.close()
    database = store.folder / "study.db"
    content = database.read_bytes()
    database.write_bytes(b"no database" * 1000)
    for _ in range(2):
        with pytest.raises(ResultsError, match=r"study\.db: is damaged"):
            Store.open(store.folder, write=True)
    database.write_bytes(content)
    Store.open(store.folder, write=True).close()


@pytest.mark.parametrize("step", range(8))
def test_a_create_killed_at_any_step_can_be_begun_again(
    campaign: Campaign, in_child: Callable[[Callable[[], object]], int], step: int
) -> None:
    """The process kills itself before its nth fsync or durable rename, or (last) after the last."""
    out = Path(campaign.out)
    steps: list[str] = []

    def killing(function: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*arguments: object) -> object:
            if len(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            steps.append("done")
            return function(*arguments)

        return wrapped

    def create() -> None:
        folder.rename_whole = killing(folder.rename_whole)
        os.fsync = killing(os.fsync)  # type: ignore[assignment]
        Store.create(out, campaign, {}, directions=["maximize"])
        os.kill(os.getpid(), signal.SIGTERM)

    ended = in_child(create)
    assert ended in (-signal.SIGKILL, -signal.SIGTERM)
    if (out / "study.db").exists():  # then it is a whole campaign
        with Store.open(out, write=True) as store:
            assert store.campaign == campaign
    else:
        assert ended == -signal.SIGKILL
        folder.refuse_existing(out, force=False)
        with Store.create(out, campaign, {}, directions=["maximize"]) as store:
            assert store.trials() == ()
