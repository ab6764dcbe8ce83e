"""One winner on which everything agrees, however often a campaign is stopped and resumed."""

import json
import shutil
from dataclasses import replace

import pytest

from evomerge import run
from evomerge.candidate.trial import Entry, Estimate
from evomerge.config import Campaign
from evomerge.report.leaderboard import leaderboard
from evomerge.search.study import Study
from evomerge.store import Store
from tests.small_campaign import TEXT, changed


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    file = tmp_path_factory.mktemp("run") / "c.yaml"
    file.write_text(TEXT)
    return Campaign.load(file)


def agreed_winner(folder, tmp_path):
    """The number of the winner, on which everything that names one must agree."""
    from evomerge.preflight.check import preflight
    from evomerge.preflight.warm_start import first_points
    from evomerge.result import materialise

    with Store.open(folder, write=False) as store:
        number, board = store.winner.number, leaderboard(store)
        point = store.trials()[number].params
        warm = store.campaign
    written = json.loads((folder / "leaderboard.json").read_text())
    assert [row.trial for row in board.winners] == [number]
    assert [row["trial"] for row in written["rows"] if row["kind"] == "winner"] == [number]
    assert f"**trial {number} (winner)**" in (folder / "leaderboard.md").read_text()
    assert f"trial {number} of" in (folder / "best" / "README.md").read_text()
    out = tmp_path / "materialised"
    assert materialise(folder, "best", out) == number
    weights = "model.safetensors"
    assert (out / weights).read_bytes() == (folder / "best" / weights).read_bytes()
    assert (out / "README.md").read_text() == (folder / "best" / "README.md").read_text()
    shutil.rmtree(out)
    search = warm.search.model_copy(update={"warm_start": str(folder)})
    ready = preflight(warm.model_copy(update={"search": search}))
    assert first_points(ready)[0] == point
    return number


def readings(folder):
    board = json.loads((folder / "leaderboard.json").read_text())
    said = [
        "items were read 2 times" in (folder / "leaderboard.md").read_text(),
        "were read 2 times" in " ".join((folder / "best" / "README.md").read_text().split()),
    ]
    count = board["campaign"]["holdout_readings"]
    assert said == [count == 2] * 2
    return count


def scoring(monkeypatch, select):
    """Let trials score on select what `select` says of their number; note what is scored where."""
    whole, seen = run.open_pool, []

    def opened(*args, **kwargs):
        pool = whole(*args, **kwargs)
        evaluate = pool.next

        def next_(*args):
            job, outcome = evaluate(*args)
            seen.append((job.entry.number, job.split))
            if job.split == "select" and job.entry.number is not None:
                value = Estimate(select(job.entry.number))
                outcome = replace(
                    outcome,
                    scores={
                        task: replace(scores, values=dict.fromkeys(scores.values, value))
                        for task, scores in outcome.scores.items()
                    },
                )
            return job, outcome

        monkeypatch.setattr(pool, "next", next_)
        return pool

    monkeypatch.setattr(run, "open_pool", opened)
    return seen


@pytest.fixture
def latest_first(monkeypatch):
    """The search items prefer the latest trials."""

    def finalists(study):
        for number in sorted(study._candidates, reverse=True):
            yield Entry(f"trial {number}", study._candidates[number], number)

    monkeypatch.setattr(Study, "finalists", finalists)


@pytest.fixture(scope="module")
def few_trials(campaign, tmp_path_factory):
    """A finished campaign of three random trials, one finalist and few items."""
    out = tmp_path_factory.mktemp("few") / "out"
    small = changed(campaign, out, sampler="random", trials=3, finalists=1)
    items = small.items.model_copy(update={"search": 4, "select": 4, "holdout": 4})
    run.search(small.model_copy(update={"items": items}))
    return out


def test_there_is_one_winner_however_often_a_campaign_is_resumed(
    tmp_path, monkeypatch, few_trials, latest_first
):
    out = shutil.copytree(few_trials, tmp_path / "out")
    seen = scoring(monkeypatch, lambda number: 2.0)
    first = agreed_winner(out, tmp_path)
    assert readings(out) == 1
    with Store.open(out, write=False) as store:
        old = {one.number for one in store.evaluations() if one.number is not None}
    second = run.resume(out, trials=3).best.number
    assert second == 5 != first
    before = list(seen)
    run.resume(out)
    assert seen == before  # nothing to do: holdout is not read again either
    assert [row for row in seen if row[1] == "holdout"] == [(second, "holdout")]
    assert agreed_winner(out, tmp_path) == second
    assert readings(out) == 2
    with Store.open(out, write=False) as store:
        kinds = {one.key: one.kind for one in store.evaluations() if one.number is not None}
    assert old < {int(key.split(":")[1]) for key in kinds}  # the finalists of the first run stay
    assert [key for key, kind in kinds.items() if kind == "winner"] == [f"trial:{second}"]


def test_a_finalist_of_the_first_run_keeps_its_place(
    tmp_path, monkeypatch, few_trials, latest_first
):
    """On select the old winner stays the best."""
    out = shutil.copytree(few_trials, tmp_path / "out")
    first = agreed_winner(out, tmp_path)
    seen = scoring(monkeypatch, lambda number: 0.0)
    assert run.resume(out, trials=2).best.number == first
    assert (4, "select") in seen
    assert "holdout" not in {split for _, split in seen}
    assert agreed_winner(out, tmp_path) == first
    assert readings(out) == 1


def test_a_trial_that_is_a_naive_merge_takes_no_place_but_may_win(campaign, tmp_path, monkeypatch):
    """Here the first points that a search is given are two of those that it knows."""
    out = tmp_path / "out"
    small = changed(campaign, out, sampler="random", trials=2, finalists=2)
    items = small.items.model_copy(update={"search": 4, "select": 4, "holdout": 4})
    small = small.model_copy(update={"items": items})
    monkeypatch.setattr(
        run,
        "first_points",
        lambda ready, file: [
            row.params
            for row in ready.space.baselines()
            if row.name in ("base", "task arithmetic λ=0.4")
        ],
    )
    assert run.search(small).best.number == 1
    assert agreed_winner(out, tmp_path) == 1
    with Store.open(out, write=False) as store:
        how = store.winner.how
        board = leaderboard(store)
    assert how.endswith("; it is the same model as task arithmetic λ=0.4")
    naive = board.row("baseline:task arithmetic λ=0.4")
    (winner,) = board.winners
    assert winner.objective("select") == naive.objective("select")
    assert winner.objective("holdout") is not None
    scoring(monkeypatch, lambda number: 0.0)  # whatever else is tried is worse
    assert run.resume(out, trials=3).best.number == 1
    with Store.open(out, write=False) as store:
        trials = {trial.number: trial.candidate for trial in store.trials()}
        scored = [one.number for one in store.evaluations() if one.split == "select"]
    finalists = [number for number in scored if number is not None]
    assert finalists[0] == 1
    assert 0 not in finalists
    assert len(finalists) == 3  # two places, and the winner
    assert len({repr(trials[number]) for number in finalists}) == 3


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize(("owner", "step"), [(run, "compared_baselines"), (Store, "write_file")])
def test_stopped_between_two_steps_the_end_heals(
    tmp_path, monkeypatch, few_trials, latest_first, owner, step
):
    """After the choice and before holdout; after `best` and before the leaderboard."""

    def stop(*args, **kwargs):
        raise Killed

    out = shutil.copytree(few_trials, tmp_path / "out")
    seen = scoring(monkeypatch, lambda number: 2.0)
    with monkeypatch.context() as broken:
        broken.setattr(owner, step, stop)
        with pytest.raises(Killed):
            run.resume(out, trials=3)
    winner = run.resume(out).best.number
    assert winner >= 3
    assert agreed_winner(out, tmp_path) == winner
    assert [row for row in seen if row[1] == "holdout"] == [(winner, "holdout")]
    assert readings(out) == 2
