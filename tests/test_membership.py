"""An expert joins a finished campaign on the zoo, and leaves it."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest

import evomerge
from evomerge import run, zoo
from evomerge.candidate import Merge
from evomerge.candidate.cost import Cost
from evomerge.candidate.ensemble import Ensemble
from evomerge.candidate.experts import with_expert
from evomerge.candidate.timing import Timing
from evomerge.candidate.trial import SPLITS, Entry, Estimate, Job, Outcome, TaskScores
from evomerge.cli import run_command
from evomerge.config import Campaign
from evomerge.errors import EvomergeError
from evomerge.kinds import kind_of
from evomerge.membership import MembershipChange, Roster, add, remove
from evomerge.merge.live import LiveModel
from evomerge.merge.tokenizer_files import TokenizerFiles
from evomerge.preflight.check import preflight
from evomerge.report.leaderboard import leaderboard
from evomerge.scoring import Scorer
from evomerge.search.reselection import Reselection, _is_valid
from evomerge.search.selection import references_of
from evomerge.store import Store
from evomerge.workers.evaluator import Evaluator
from tests.small_campaign import TEXT

TASKS = ("zoo_facts", "zoo_translation", "zoo_tools")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign of merges of two experts."""
    folder = tmp_path_factory.mktemp("finished")
    text = TEXT.replace("search: 8, select: 8, holdout: 16", "search: 24, select: 16, holdout: 24")
    text = text.replace("trials: 6, finalists: 2", "trials: 2, finalists: 1")
    (folder / "c.yaml").write_text(text)
    return evomerge.search(Campaign.load(folder / "c.yaml")).folder


@pytest.fixture(scope="module")
def joined(
    finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[MembershipChange, Path]:
    """The same with a third expert, which brought its task."""
    folder = tmp_path_factory.mktemp("joined") / "results"
    shutil.copytree(finished, folder)
    return add(folder, "zoo:tools", task="zoo_tools"), folder


@pytest.fixture
def results(joined: tuple[MembershipChange, Path], tmp_path: Path) -> Path:
    return shutil.copytree(joined[1], tmp_path / "results")


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """What is evaluated from here on."""
    found: list[Job] = []
    evaluate = Evaluator.evaluate

    def noted(self: Evaluator, job: Job) -> object:
        found.append(job)
        return evaluate(self, job)

    monkeypatch.setattr(Evaluator, "evaluate", noted)
    return found


def test_who_joins_brings_its_job_and_takes_none_away(
    joined: tuple[MembershipChange, Path],
) -> None:
    change, folder = joined
    assert isinstance(change.before.candidate, Merge)
    assert isinstance(change.after.candidate, Ensemble)
    assert "tools" in change.after.candidate.members
    for values in change.values.values():
        assert tuple(values) == TASKS
        before, now, alone = values["zoo_tools"]
        assert before is not None
        assert now is not None
        assert alone is not None
        assert now > (before + alone) / 2
    for task in TASKS[:2]:
        before, now, _ = change.values["select"][task]
        assert now is not None
        assert before is not None
        assert now >= before - 0.1
    assert not (folder / "best" / "model.safetensors").exists()
    assert set(evomerge.load(folder / "best").names) == {*change.after.candidate.members}


def test_the_leaderboard_shows_what_best_holds(joined: tuple[MembershipChange, Path]) -> None:
    change, folder = joined
    board = json.loads((folder / "leaderboard.json").read_text())
    rows = {row["name"]: row for row in board["rows"]}
    assert rows["with tools"]["kind"] == "winner"
    assert rows[change.before.name]["kind"] == "finalist"
    assert rows["tools"]["kind"] == "expert"
    assert set(board["routing"]) == {"search", "select", "holdout"}
    assert "with tools" in board["campaign"]["chosen"]
    for split, values in change.values.items():
        tasks = rows["with tools"]["splits"][split]["tasks"]
        for task, (_, now, _) in values.items():
            assert tasks[task]["exact_match"]["value"] == now
    assert "trust_remote_code=True" in (folder / "best" / "README.md").read_text()
    with Store.open(folder, write=False) as store:
        assert store.finished
        assert store.winner is not None
        assert store.winner.entry == change.after
        assert leaderboard(store).winners[0].name == "with tools"


def test_what_is_saved_scores_what_the_leaderboard_says(
    joined: tuple[MembershipChange, Path],
) -> None:
    change, folder = joined
    scores = evomerge.score(str(folder / "best"), campaign=folder, split="select")
    assert set(scores.scored.tasks) == set(TASKS[:2]), "those of the campaign"
    with Store.open(folder, write=False) as store:
        known = store.evaluation(change.after.key, "select")
    assert known is not None
    for task, found in scores.scored.tasks.items():
        assert found.items == known.scores[task].items
        assert found.metrics["exact_match"] == known.scores[task].metrics["exact_match"]
        assert found.values["exact_match"] == known.scores[task].values["exact_match"]


def test_what_is_saved_writes_what_was_written_in_the_search(
    finished: Path, joined: tuple[MembershipChange, Path]
) -> None:
    candidate = joined[0].after.candidate
    scorer = Scorer(preflight(Campaign.load(finished / "campaign.yaml")).items)
    live = LiveModel(candidate.model_names(), dtype="float32")
    builder = kind_of(candidate).opened(live, scorer.prompts(live.module))
    prompts = scorer.prompts(live.module).tokens("holdout")
    opened = evomerge.load(joined[1] / "best")
    answered = 0
    for part in builder.parts(candidate, "holdout") or ():
        tokens = [prompts[task][n] for task, own in part.positions.items() for n in own]
        texts = opened.tokenizer.batch_decode(tokens)
        assert opened.route(texts) == [part.member] * len(texts)
        live.write(part.candidate)
        written = scorer.write(live.module, texts, 24, ())
        assert opened.generate(texts, max_new_tokens=24, do_sample=False) == written
        answered += len(texts)
    assert answered == 48


def test_the_winner_can_be_saved_again(results: Path, tmp_path: Path) -> None:
    assert evomerge.merge(results, tmp_path / "again", trial="best") is None
    texts = [
        evomerge.load(one).generate(["a", "b"], max_new_tokens=3)
        for one in (results / "best", tmp_path / "again")
    ]
    assert texts[0] == texts[1]


def test_who_leaves_is_part_of_nothing_and_nothing_is_scored_twice(
    results: Path, jobs: list[Job]
) -> None:
    change = remove(results, "tools")
    assert change.joined is None
    assert str(zoo.resolve("zoo:tools")) not in change.after.candidate.model_names()
    assert change.after.name == "without tools"
    assert {job.entry.name for job in jobs} <= {"without tools", "merge without tools"}
    ensembles = [job for job in jobs if job.entry.candidate.scored_members]
    assert all(job.scored for job in ensembles)
    jobs.clear()
    again = add(results, "zoo:tools")
    assert again.after.name == "with tools"
    assert "tools" not in {job.entry.name for job in jobs}
    assert set(again.values["select"]) == set(TASKS), "the task that it once brought still counts"


def test_an_expert_whose_model_is_gone_can_leave(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(finished, tmp_path / "results")
    model = tmp_path / "extra"
    shutil.copytree(zoo.resolve("zoo:extraction"), model)
    assert run_command(["add", str(folder), str(model), "--display", "none"]) == 0
    shown = capsys.readouterr().out
    assert "holdout items" in shown
    assert f"best model: {folder / 'best'}" in shown
    shutil.rmtree(model)
    assert run_command(["remove", str(folder), "extra", "--display", "none"]) == 0
    assert "without extra is the winner" in capsys.readouterr().out


def test_an_expert_that_helps_nobody_changes_no_winner(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(finished, tmp_path / "results")
    best = (folder / "best" / "model.safetensors").read_bytes()
    monkeypatch.setattr(Reselection, "best", lambda self, entries, split="select": entries[0])
    change = add(folder, "zoo:tools")
    assert change.after == change.before
    assert (folder / "best" / "model.safetensors").read_bytes() == best
    change = remove(folder, "tools")
    assert change.after == change.before, "a winner that it was no part of competes"
    assert (folder / "best" / "model.safetensors").read_bytes() == best
    with Store.open(folder, write=False) as store:
        assert store.finished
        assert "expert:tools" in {one.key for one in store.evaluations()}


def test_the_old_model_stays_until_the_new_one_is_whole(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(finished, tmp_path / "results")
    best = (folder / "best" / "model.safetensors").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "full")

    monkeypatch.setattr(TokenizerFiles, "write", full)
    with pytest.raises(EvomergeError, match="cannot be written: full"):
        add(folder, "zoo:tools", task="zoo_tools")
    monkeypatch.undo()
    assert (folder / "best" / "model.safetensors").read_bytes() == best
    result = evomerge.resume(folder)
    assert result.best.name == "with tools"
    assert evomerge.load(folder / "best").names


def test_who_left_is_not_chosen_again_where_the_saving_failed(
    results: Path, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "full")

    with monkeypatch.context() as patched:
        patched.setattr(TokenizerFiles, "write", full)
        with pytest.raises(EvomergeError, match="full"):
            remove(results, "tools")
    jobs.clear()
    told: list[str] = []

    class Told(evomerge.Callback):
        def on_end(self, result: evomerge.Result) -> None:
            told.append(result.best.name)

    def checked(*_: object, **__: object) -> None:
        raise AssertionError("nothing is checked or chosen again: the expert's model may be gone")

    monkeypatch.setattr(run, "preflight", checked)
    result = evomerge.resume(results, callbacks=[Told()])
    assert result.best.name == "without tools"
    assert (jobs, told) == ([], ["without tools"])
    with Store.open(results, write=False) as store:
        assert (store.finished, store.saving) == (True, False)
    assert evomerge.load(results / "best")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "zoo:tool"], "zoo has no model"),
        (["add", "zoo:facts"], 'a member is called "facts" already; give another --name'),
        (["add", "zoo:tools", "--name", "best"], 'a member is called "best" already'),
        (["add", "nowhere/at/all"], "no such folder"),
        (["add", "zoo:facts", "--name", "twin"], "is the same model as"),
        (
            ["add", "zoo:tools", "--task", "zoo_facts"],
            '--task: "zoo_facts" is an objective already',
        ),
        (["add", "zoo:tools", "--task", "zoo_tool"], "zoo_tool"),
        (["add", "zoo:tools", "--task", "zoo_tools", "--metric", "bleu"], "bleu"),
        (["remove", "fact"], 'no expert is called "fact"; did you mean "facts"?'),
        (["remove", "base"], 'no expert is called "base"'),
    ],
)
def test_what_cannot_be_is_one_line(
    finished: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    command, *rest = arguments
    best = (finished / "best" / "model.safetensors").stat().st_mtime_ns
    status = run_command([command, str(finished), *rest])
    error = capsys.readouterr().err
    assert (status, len(error.splitlines())) == (2, 1), error
    assert message in error
    assert (finished / "best" / "model.safetensors").stat().st_mtime_ns == best


def test_the_last_expert_stays(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("tools", "facts"):
        remove(results, name)
    assert run_command(["remove", str(results), "translation"]) == 2
    assert "is the last expert" in capsys.readouterr().err


def test_an_expert_that_the_space_names_can_leave_and_is_explained(tmp_path: Path) -> None:
    space = TEXT[TEXT.index("space:") : TEXT.index("objectives:")]
    text = TEXT.replace(space, "space: {kind: ensemble, members: [base, facts, translation]}\n")
    text = text.replace("trials: 6, finalists: 2", "trials: 2, finalists: 1")
    (tmp_path / "c.yaml").write_text(text)
    folder = evomerge.search(Campaign.load(tmp_path / "c.yaml")).folder
    change = remove(folder, "facts")
    assert str(zoo.resolve("zoo:facts")) not in change.after.candidate.model_names()
    assert evomerge.explain(folder, workers=0).winner == change.after.name


def test_of_several_outcomes_all_costs_count_and_a_timing_stays() -> None:
    reselection = Reselection.__new__(Reselection)
    reselection._known = {split: {} for split in SPLITS}
    base = Merge("passthrough", ("b",))
    scores = TaskScores(("a",), {"acc": (1.0,)}, {"acc": Estimate(1.0)})
    timing = Timing(*([1.0] * len(fields(Timing))))
    first = Outcome({"old": scores}, cost=Cost(items=100, generated_tokens=10_000), timing=timing)
    second = Outcome({"new": scores}, cost=Cost(items=50, generated_tokens=500))
    for outcome in (first, second):
        reselection._keep(base, "select", outcome)
    found = reselection._outcome(Entry("base", base), "select")
    assert (found.cost.items, found.cost.generated_tokens) == (150, 10_500)
    assert found.timing == timing
    reselection._keep(base, "select", replace(second, scores=found.scores))
    assert reselection._outcome(Entry("base", base), "select").cost.items == 50


def test_a_search_that_goes_on_is_measured_by_who_it_began_with(results: Path) -> None:
    with Store.open(results, write=False) as store:
        names = {one.name for one in references_of(store) if one.kind == "expert"}
        every = {one.name for one in store.evaluations() if one.kind == "expert"}
        assert names == set(store.campaign.expert_names())
    assert every - names == {"tools"}


def test_a_method_of_two_models_takes_no_third_one(results: Path) -> None:
    with Store.open(results, write=False) as store:
        (one, other) = (f"zoo:{name}" for name in Roster.began(store).experts)
    models = [str(zoo.resolve(name)) for name in ("zoo:base", one, other)]
    two = Merge("slerp", (models[1],), models[0])
    assert _is_valid(two)
    third = with_expert(two, models[2], 0.5)
    assert third is not None
    assert not _is_valid(third)


def test_an_unfinished_campaign_is_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(finished, tmp_path / "results")
    with Store.open(folder, write=True) as store:
        store.finish(False)
    assert run_command(["add", str(folder), "zoo:tools"]) == 2
    assert f"finish it with: evomerge resume {folder}" in capsys.readouterr().err
