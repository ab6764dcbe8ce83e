"""What a results folder gives, with a winner and while there is none."""

import pytest

import evomerge
from evomerge.errors import ResultsError
from evomerge.result import Result
from evomerge.store import Store
from tests.small_results import TASK, write_results


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return evomerge.open(write_results(tmp_path_factory.mktemp("finished") / "out"))


@pytest.fixture
def unfinished(tmp_path):
    return evomerge.open(write_results(tmp_path / "out", expert="<script>", winner=False))


def test_a_winner_is_the_best(finished):
    assert finished.best is finished.winner
    assert (finished.best.name, finished.best.number) == ("trial 0", 0)
    assert [row.name for row in finished.leaderboard.winners] == ["trial 0"]


def test_best_says_what_to_do_while_there_is_no_winner(unfinished):
    assert unfinished.winner is None
    with pytest.raises(ResultsError) as caught:
        unfinished.best  # noqa: B018
    assert caught.value.file == str(unfinished.folder)
    assert f"finish it with `evomerge resume {unfinished.folder}`" in caught.value.message


def test_a_result_shows_itself_in_short(finished, unfinished):
    assert repr(finished) == f"<Result small: winner trial 0, {finished.folder}>"
    assert repr(unfinished) == f"<Result small: no winner yet, {unfinished.folder}>"


def test_a_notebook_shows_the_leaderboard_and_runs_no_name(finished, unfinished):
    shown = finished._repr_html_()
    assert shown.startswith("<table>")
    assert "<b>trial 0 (winner)</b>" in shown
    assert "<script" not in unfinished._repr_html_()
    assert "&lt;script&gt;" in unfinished._repr_html_()


def test_trials_and_study_are_read_from_the_folder_each_time(unfinished):
    (row,) = unfinished.to_pandas().to_dict("records")
    assert (row["number"], row["state"], row["value"]) == (0, "complete", 0.75)
    assert (row[f"{TASK}/exact_match"], row["params_weight"]) == (0.75, 0.5)
    (trial,) = unfinished.study.trials
    assert (trial.value, trial.params) == (0.75, {"weight": 0.5})
    with Store.open(unfinished.folder, write=False) as store:  # nobody holds it
        assert repr(Result.of(store)) == repr(unfinished)
