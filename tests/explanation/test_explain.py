"""A winner of a small campaign on the zoo is explained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import evomerge
from evomerge.candidate import Merge
from evomerge.candidate.trial import GradientJob, Gradients, Job, Outcome
from evomerge.cli import run_command
from evomerge.explanation.explanation import Explanation
from evomerge.explanation.summary import largest
from evomerge.merge.checkpoint import open_checkpoint
from evomerge.merge.task_vectors import task_vectors
from evomerge.report.leaderboard import leaderboard
from evomerge.store import Store
from evomerge.workers.evaluator import Evaluator
from evomerge.zoo import resolve
from tests.small_results import write_results

SPECIALISTS = {"zoo_facts": "facts", "zoo_translation": "translation"}


@pytest.fixture(scope="module")
def explained(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Explanation, Path]:
    import shutil

    folder = shutil.copytree(finished, tmp_path_factory.mktemp("once") / "results")
    return evomerge.explain(folder, random=True), folder


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What workers are asked from here on."""
    found: list[object] = []
    for name in ("evaluate", "gradient", "states"):
        plain = getattr(Evaluator, name)

        def noted(self: Evaluator, job: object, plain=plain) -> object:
            found.append(job)
            return plain(self, job)

        monkeypatch.setattr(Evaluator, name, noted)
    return found


def test_each_task_owes_most_to_its_specialist(explained: tuple[Explanation, Path]) -> None:
    found, _ = explained
    assert [one.expert for one in found.experts] == ["facts", "translation"]
    for task, expert in SPECIALISTS.items():
        top = largest(found.experts, task)
        assert top is not None
        assert top.expert == expert
        assert f"{task.removeprefix('zoo_')} owes most to the expert {expert} (" in found.summary


def test_differences_are_those_of_the_scores(explained: tuple[Explanation, Path]) -> None:
    found, folder = explained
    with Store.open(folder, write=False) as store:
        winner = store.winner
        assert winner is not None
        assert isinstance(winner.candidate, Merge)
        whole = store.evaluation(winner.entry.key, "select")
        row = winner.candidate.own["weight"]
        nothing = tuple(tuple((0.0, weights[1]) for weights in group) for group in row)
        ablated = replace(winner.candidate, own={"weight": nothing})
        left = store.findings.outcome(ablated, "select")
    assert whole is not None
    assert left is not None
    for task, gain in found.experts[0].tasks.items():
        pairs = zip(
            whole.scores[task].metrics["exact_match"],
            left.scores[task].metrics["exact_match"],
            strict=True,
        )
        differences = [one - other for one, other in pairs]
        assert gain is not None
        assert gain.test.n == 24
        assert gain.test.difference == pytest.approx(sum(differences) / 24)
        assert gain.test.low <= gain.test.difference <= gain.test.high
        assert gain.p_corrected >= gain.test.p


def test_groups_are_those_of_the_recipe(explained: tuple[Explanation, Path]) -> None:
    assert [one.name for one in explained[0].groups] == ["layers 0-2", "layers 2-4"]
    assert all(one.mean is not None for one in explained[0].groups)


def test_predictions_are_gradients_times_a_small_change(
    explained: tuple[Explanation, Path],
) -> None:
    found, _ = explained
    assert found.sensitivity is not None
    for task, specialist in SPECIALISTS.items():
        table = found.sensitivity.gradients[task]
        assert [len(table), len(table[0]), len(table[0][0])] == [2, 1, 2]
        place = found.sensitivity.experts.index(specialist)
        by_hand = 0.1 * (table[0][0][place] + table[1][0][place])
        assert found.sensitivity.predicted(specialist, task) == pytest.approx(by_hand)


def test_conflicts_are_those_of_the_files(explained: tuple[Explanation, Path]) -> None:
    found, _ = explained
    conflict = found.conflict
    assert conflict is not None
    assert conflict.experts == ("facts", "translation")
    opened = [open_checkpoint(str(resolve(f"zoo:{one}"))) for one in ("base", *conflict.experts)]
    assert conflict.task_vectors == task_vectors(opened[0], opened[1:])
    assert [len(conflict.distances), conflict.prompts] == [5, 48]
    assert conflict.distances[3][0][1] == conflict.distances[3][1][0] > 0


def test_items_gained_and_lost_add_up(explained: tuple[Explanation, Path]) -> None:
    found, folder = explained
    with Store.open(folder, write=False) as store:
        board = leaderboard(store)
    for changes in found.changes:
        (winner,) = board.winners
        mine, theirs = (row.outcome(changes.split) for row in (winner, board.row(changes.against)))
        assert mine is not None
        assert theirs is not None
        for task in SPECIALISTS:
            values = [one.scores[task].values["exact_match"].value for one in (mine, theirs)]
            net = changes.gained[task] - changes.lost[task]
            assert net == pytest.approx(changes.items[task] * (values[0] - values[1]))
        for one in changes.examples_gained:
            assert one.score > one.other_score
            assert one.prompt
            assert one.answer.strip() == one.gold.strip()
            assert one.other_answer.strip() != one.gold.strip()
    assert {one.part for one in found.changes} == {"best expert", "plain average"}
    assert found.changes[0].examples_gained


def test_random_task_vectors_have_none_of_the_skill(explained: tuple[Explanation, Path]) -> None:
    found, _ = explained
    assert found.random is not None
    assert found.mean is not None
    assert found.random.mean is not None
    assert found.random.mean.value < found.mean.value / 2


def test_files_are_written_and_the_leaderboard_is_as_it_was(
    explained: tuple[Explanation, Path], finished: Path
) -> None:
    found, folder = explained
    data = json.loads((folder / "explanation.json").read_text())
    assert data["summary"] == found.summary
    assert data["experts"][0]["expert"] == "facts"
    assert found.summary.split(".")[0] in (folder / "explanation.md").read_text()
    for name in ("leaderboard.json", "leaderboard.md"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()
    with Store.open(folder, write=False) as now, Store.open(finished, write=False) as before:
        assert now.evaluations() == before.evaluations()
        assert now.finished


def test_a_second_time_nothing_is_scored(
    explained: tuple[Explanation, Path], work: list[object]
) -> None:
    found, folder = explained
    assert evomerge.explain(folder, random=True) == found
    assert work == []


def test_what_was_killed_goes_on(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = Evaluator.evaluate
    done: list[Job] = []

    def dies(self: Evaluator, job: Job) -> Outcome:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(job)
        return evaluate(self, job)

    monkeypatch.setattr(Evaluator, "evaluate", dies)
    with pytest.raises(KeyboardInterrupt):
        evomerge.explain(results)
    later: list[Job] = []
    monkeypatch.setattr(
        Evaluator, "evaluate", lambda self, job: (later.append(job), evaluate(self, job))[1]
    )
    evomerge.explain(results)
    names = [job.entry.name for job in (*done, *later)]
    assert len(done) == 2
    assert len(names) == len(set(names)) == 4


def test_an_expert_of_weight_0_adds_exactly_nothing(results: Path, work: list[object]) -> None:
    with Store.open(results, write=True) as store:
        assert store.winner is not None
        merge = store.winner.candidate
        assert isinstance(merge, Merge)
        own = {"weight": tuple(((0.8, 0.0),) for _ in range(2))}
        number = store.winner.number
        entry = replace(
            store.winner.entry, candidate=replace(merge, own=own), number=None, role="finalist"
        )
        outcome = Evaluator(_setup(store)).evaluate(
            Job(entry, "select", _metrics(store), answers=True)
        )
        store.record(Job(entry, "select"), outcome)
        store.choose(entry, f"in the place of trial {number}")
    work.clear()
    found = evomerge.explain(results)
    idle = found.experts[1]
    assert idle.unchanged
    assert "the same model without translation" in found.summary
    for gain in (idle.mean, *idle.tasks.values()):
        assert gain is not None
        assert (gain.test.difference, gain.test.low, gain.test.high, gain.test.p) == (0, 0, 0, 1)
    scored = [job.entry.name for job in work if isinstance(job, Job)]
    assert scored == [
        "without facts",
        "without layers 0-2, tensors all",
        "without layers 2-4, tensors all",
    ]


def _setup(store: Store):
    from evomerge.preflight.check import preflight
    from evomerge.run import setup_of

    return setup_of(preflight(store.campaign))


def _metrics(store: Store) -> dict[str, tuple[str, ...]]:
    return {goal.task: (goal.report,) for goal in store.campaign.objectives}


def test_a_gradient_that_fails_is_said(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evomerge.candidate.trial import Failure, FailureKind

    def fails(self: Evaluator, job: GradientJob) -> Gradients:
        return Gradients(failure=Failure(FailureKind.NOT_FINITE, "the loss is NaN"))

    monkeypatch.setattr(Evaluator, "gradient", fails)
    found = evomerge.explain(results)
    assert found.sensitivity is None
    assert "Not known: gradient on zoo_facts (the loss is NaN)." in found.notes
    assert found.experts[0].mean is not None


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = run_command(["explain", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


def test_the_command_prints_what_was_found(
    explained: tuple[Explanation, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found, folder = explained
    page = tmp_path / "pages" / "explained.html"
    status, out, err = run(capsys, folder, "--html", page)
    assert found.summary[:80] in page.read_text()
    assert (status, err) == (0, "")
    assert "What each expert adds" in out
    assert " ".join(found.summary.split()) in " ".join(out.split())
    data = json.loads(run(capsys, folder, "--format", "json")[1])
    assert data["winner"] == found.winner
    assert run(capsys, folder, "--format", "csv")[1].startswith("kind,expert,layers")


def test_bad_input_is_one_line(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished = write_results(tmp_path / "unfinished", winner=False)
    for folder, message in (
        (tmp_path, "holds no campaign"),
        (unfinished, "is not finished; finish it with: evomerge resume"),
    ):
        status, out, err = run(capsys, folder)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert message in err
    status, _, err = run(capsys, results, "--format", "pdf")
    assert (status, err.count("\n")) == (2, 1)
    assert 'unknown format "pdf"' in err
    status, _, err = run(capsys, results, "--html", tmp_path)
    assert (status, err.count("\n")) == (2, 1)
    assert "is a folder; expected the name of an HTML file" in err
    with Store.open(results, write=True):
        status, _, err = run(capsys, results)
    assert (status, err.count("\n")) == (2, 1)
    assert "another process is writing to this folder" in err


def test_changed_models_are_refused(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from evomerge.preflight import family

    monkeypatch.setattr(family, "fingerprint", lambda model: f"another {model}")
    status, _, err = run(capsys, results)
    assert (status, err.count("\n")) == (2, 1)
    assert 'the models changed since the campaign began: "base"' in err
