"""Objectives without labels on the zoo, small: teachers answer, a campaign on their answers, resume."""

import json
import shutil

import pyarrow.parquet
import pytest

import evomerge
from evomerge import run
from evomerge.candidate.trial import Failure, FailureKind
from evomerge.candidate.writing import Written
from evomerge.config import Campaign
from evomerge.errors import CampaignStopped, ResultsError, TaskError
from evomerge.single import score_on_campaign
from evomerge.store import Store
from evomerge.workers.evaluator import Evaluator
from evomerge.zoo import items
from tests.small_campaign import TEXT

LABELLED = "  - {task: zoo_facts, metric: gold_loglikelihood, report: exact_match}\n"
OTHER = "  - {task: zoo_translation, metric: gold_loglikelihood, report: exact_match}\n"
FACTS = "  - {prompts: asked.jsonl, teacher: facts, max_tokens: 24}\n"
BOTH = (
    "  - {prompts: talk.jsonl, teacher: translation, max_tokens: 48,\n"
    "     metric: gold_loglikelihood, report: teacher_match}\n"
)


def write(folder, *changes):
    """Write a campaign with lines replaced, and two files of prompts beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = [{"prompt": item.prompt} for item in items("facts", "test", 50)]
    talk = []
    for item in items("translation", "test", 40):
        said = item.prompt.removeprefix("<|user|>").partition("<|end|>")[0]
        talk.append({"messages": [{"role": "user", "content": said}]})
    for name, lines in (("asked", asked), ("talk", talk)):
        text = "\n".join(json.dumps(line) for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    text = TEXT
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        assert old in text
        text = text.replace(old, new, 1)
    (folder / "c.yaml").write_text(text)
    return Campaign.load(folder / "c.yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("teaching")


@pytest.fixture(scope="module")
def campaign(folder):
    return write(folder, LABELLED, FACTS, OTHER, BOTH, "cmaes, trials: 6", "gradient, trials: 4")


@pytest.fixture(scope="module")
def result(campaign):
    return evomerge.search(campaign)


def test_a_campaign_of_prompts_alone_runs_to_its_end(result, campaign):
    board = json.loads((result.folder / "leaderboard.json").read_text())
    rows = {
        row["key"]: row["splits"]["holdout"] for row in board["rows"] if "holdout" in row["splits"]
    }
    for teacher, task in (("facts", "asked"), ("translation", "talk")):
        assert rows[f"expert:{teacher}"]["tasks"][task]["teacher_match"]["value"] == 1.0
        assert rows["base"]["tasks"][task]["teacher_match"]["value"] < 0.7
        far = {key: row["tasks"][task]["teacher_divergence"]["value"] for key, row in rows.items()}
        assert abs(far[f"expert:{teacher}"]) < 0.01
        assert far["base"] > 0.1
    notes = " ".join((result.folder / "leaderboard.md").read_text().split())
    assert (
        "asked: prompts without labels, so what is scored is agreement with the answers of facts"
        in notes
    )
    assert "translation itself has a teacher_match of 1 by construction; trial" in notes
    files = {path.name for path in (result.folder / "tasks").iterdir() if path.is_file()}
    assert files == {
        f"{name}.{end}" for name in ("asked", "talk") for end in ("yaml", "parquet")
    } | {"teacher_task.py"}
    with Store.open(result.folder, write=False) as store:
        assert any(step.loss is not None for step in store.gradient_steps())


def test_answers_are_the_teachers_own(result):
    """As the zoo's generators know them: the experts are right nearly always."""
    table = pyarrow.parquet.read_table(result.folder / "tasks" / "asked.parquet").to_pylist()
    gold = {item.prompt: item.answer for item in items("facts", "test", 50)}
    assert len(table) == 8 + 8 + 16  # only what was drawn was answered
    assert sum(row["answer"] == gold[row["prompt"]] for row in table) > 24


def test_any_model_is_scored_on_the_same_answers(result):
    scored = score_on_campaign("zoo:facts", result.folder, "select").scored.tasks
    assert scored["asked"].values["teacher_match"].value == 1.0
    assert scored["talk"].values["teacher_match"].value < 0.7


def test_resume_answers_nothing_again(result, campaign, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "answered", lambda *_: pytest.fail("answered again"))
    moved = tmp_path / "moved"
    shutil.copytree(result.folder, moved)
    again = evomerge.resume(moved, trials=2)
    with Store.open(moved, write=False) as store:
        assert len(store.trials()) == 6
    assert again.leaderboard.winners


def test_other_prompts_or_answers_are_refused_at_resume(result, campaign, folder, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(result.folder, moved)
    path = folder / "asked.jsonl"
    before = path.read_text()
    path.write_text(before + '\n{"text": "One more"}')
    try:
        with pytest.raises(
            ResultsError, match=r'prompt files changed .*: "asked" has other prompts'
        ):
            evomerge.resume(moved, trials=1)
    finally:
        path.write_text(before)
    parquet = moved / "tasks" / "asked.parquet"
    table = pyarrow.parquet.read_table(parquet)
    answers = ["changed", *table["answer"].to_pylist()[1:]]
    table = table.set_column(1, "answer", [answers])
    pyarrow.parquet.write_table(table, parquet)
    with pytest.raises(ResultsError, match=r'answers changed .*: "asked" has other answers'):
        evomerge.resume(moved, trials=1)
    parquet.unlink()
    with pytest.raises(TaskError, match="asked") as caught:
        evomerge.resume(moved, trials=1)
    assert "\n" not in str(caught.value)


def test_labels_and_prompts_mix_and_need_no_gradients(tmp_path):
    campaign = write(
        tmp_path, LABELLED, FACTS, "cmaes, trials: 6, finalists: 2", "random, trials: 2"
    )
    found = evomerge.search(campaign).leaderboard
    tasks = found.winners[0].splits["holdout"].tasks
    assert set(tasks) == {"asked", "zoo_translation"}
    assert set(tasks["asked"]) == {"teacher_match", "teacher_divergence"}
    assert "exact_match" in tasks["zoo_translation"]


def test_a_teacher_that_says_nothing_is_refused_and_nothing_is_written(tmp_path):
    firsts = sorted({item.answer[0] for item in items("facts", "test", 50)})
    goal = FACTS.replace("}", f", until: {json.dumps(firsts)}}}")
    quiet = write(tmp_path, LABELLED, goal)
    with pytest.raises(
        TaskError, match=r'"facts" answers none of the 32 prompts: every answer is empty'
    ):
        evomerge.search(quiet)
    assert not (tmp_path / "out").exists()


def test_a_teacher_that_fails_stops_the_campaign(tmp_path, monkeypatch):
    failure = Failure(FailureKind.OUT_OF_MEMORY, "no room")
    monkeypatch.setattr(Evaluator, "write", lambda self, job: Written(failure=failure))
    campaign = write(tmp_path, LABELLED, FACTS)
    with pytest.raises(CampaignStopped, match='the answers of "facts" to "asked": no room'):
        evomerge.search(campaign)
    assert not (tmp_path / "out").exists()
