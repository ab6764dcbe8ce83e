"""A campaign whose merge method is a user's goes on, explains and builds by the copy of its file."""

import json
import shutil

import pytest

import evomerge
from evomerge.config import Campaign
from evomerge.errors import CampaignError, CampaignStopped, ResultsError, UserError
from evomerge.merge.user_methods import FILE, use
from evomerge.store import Store
from tests.small_campaign import TEXT

SOURCE = """\
import evomerge

WEIGHT = evomerge.Parameter("number", "share of the expert", required=True, per_source=True)


@evomerge.method("shares", {"weight": WEIGHT})
def shares(inputs):
    merged = inputs.tensor(inputs.base).clone()
    for index in inputs.others:
        merged += inputs.own[index]["weight"] * inputs.delta(index)
    return merged
"""
CAMPAIGN = (
    TEXT.replace("method: task_arithmetic", "method: shares")
    .replace("tasks_path:", "methods: mine.py\ntasks_path:")
    .replace("sampler: cmaes, trials: 6, finalists: 2", "sampler: random, trials: 2, finalists: 1")
    .replace("search: 8, select: 8, holdout: 16", "search: 4, select: 4, holdout: 4")
)


@pytest.fixture(autouse=True)
def forgotten():
    yield
    use(None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("methods")


@pytest.fixture(scope="module")
def result(folder):
    (folder / "mine.py").write_text(SOURCE)
    (folder / "c.yaml").write_text(CAMPAIGN)
    found = evomerge.search(folder / "c.yaml")
    (folder / "mine.py").unlink()
    use(None)
    return found


def values(folder):
    with Store.open(folder, write=False) as store:
        return [trial.values for trial in store.trials()]


def test_the_results_folder_has_the_file_and_so_has_the_winner(result):
    assert (result.folder / FILE).read_text() == SOURCE
    assert result.best.candidate.method == "shares", "the winner is another merge"
    best = result.folder / "best"
    assert (best / FILE).read_text() == SOURCE
    assert f"--methods {FILE}" in (best / "README.md").read_text()


def test_the_winner_is_rebuilt_to_the_same_bytes(result, tmp_path):
    best = result.folder / "best"
    evomerge.merge(best / "recipe.yaml", tmp_path / "by recipe", methods=best / FILE)
    evomerge.merge(result.folder, tmp_path / "by trial", trial="best")
    for name in ("by recipe", "by trial"):
        for file in ("model.safetensors", FILE):
            assert (tmp_path / name / file).read_bytes() == (best / file).read_bytes()
    with pytest.raises(UserError, match="has its own file of methods"):
        evomerge.merge(result.folder, tmp_path / "x", trial="best", methods=best / FILE)


def test_reports_and_explanations_do_without_the_users_file(result):
    assert evomerge.report(result.folder).rows
    evomerge.explain(result.folder, workers=0)
    assert json.loads((result.folder / "explanation.json").read_text())["winner"]


def test_resume_goes_on_by_the_copy_and_refuses_a_changed_one(result, folder, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(result.folder, again)
    before = values(again)
    evomerge.resume(again, trials=1)
    assert values(again)[:-1] == before
    assert len(values(again)) == len(before) + 1
    (again / FILE).write_text(SOURCE.replace("+=", "-="))
    with pytest.raises(ResultsError, match=r'methods changed since the campaign began: "mine\.py"'):
        evomerge.resume(again, trials=1)
    (again / FILE).unlink()
    with pytest.raises(CampaignError, match=rf"{FILE}: methods: no such file"):
        evomerge.resume(again, trials=1)


def test_it_searches_what_task_arithmetic_does_also_on_two_workers(result, folder, tmp_path):
    (folder / "plain.yaml").write_text(CAMPAIGN.replace("shares", "task_arithmetic"))
    (folder / "mine.py").write_text(SOURCE)
    plain = evomerge.search(folder / "plain.yaml", out=tmp_path / "plain")
    assert not (plain.folder / "best" / FILE).exists()
    two = evomerge.search(folder / "c.yaml", out=tmp_path / "two", workers=2)
    (folder / "mine.py").unlink()
    begins, drawn = values(result.folder)[
        :2
    ]  # where a search begins, and what is drawn for any method
    assert drawn == pytest.approx(values(plain.folder)[1], abs=1e-6)
    assert sorted(values(two.folder)) == sorted([begins, drawn])
    weights = [folder / "best" / "model.safetensors" for folder in (two.folder, result.folder)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_method_that_fails_is_a_trial_that_failed(folder, tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE.replace("return merged", "return merged[:1]"))
    (tmp_path / "c.yaml").write_text(CAMPAIGN)
    with pytest.raises(
        CampaignStopped, match=r'failed 2 times.*method "shares" returned'
    ) as caught:
        evomerge.search(tmp_path / "c.yaml")
    assert "\n" not in str(caught.value)
    with Store.open(tmp_path / "out", write=False) as store:
        assert {trial.state for trial in store.trials()} == {"failed"}
        reason = store.trials()[0].outcome.failure.reason
    assert "model.embed_tokens.weight" in reason


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (None, "no such file"),
        ("import nothing_of_the_kind\n", r"mine.py:1: cannot be imported: ModuleNotFoundError"),
        ("x = 1\n", "declares no merge method"),
        (SOURCE.replace('"shares"', '"ties"'), 'declares "ties", which is a method already'),
        (SOURCE.replace('"shares"', '"sharse"'), 'unknown method "shares"; did you mean "sharse"'),
    ],
)
def test_check_answers_a_file_that_cannot_be_used_with_one_line(tmp_path, source, expected):
    if source is not None:
        (tmp_path / "mine.py").write_text(source)
    (tmp_path / "c.yaml").write_text(CAMPAIGN)
    with pytest.raises(CampaignError, match=expected) as caught:
        evomerge.check(tmp_path / "c.yaml")
    field = "space.method" if "unknown" in expected else "methods"
    lines = CAMPAIGN.splitlines()
    line = next(
        n for n, text in enumerate(lines, 1) if text.strip().startswith(field.split(".")[-1])
    )
    assert f"c.yaml:{line}: {field}: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_is_taken_from_the_campaigns_folder(tmp_path, monkeypatch):
    (tmp_path / "c.yaml").write_text(CAMPAIGN)
    monkeypatch.chdir(tmp_path.parent)
    assert Campaign.load(tmp_path / "c.yaml").methods == str((tmp_path / "mine.py").resolve())
