"""The main job on the zoo, small: search, resume after Ctrl-C and kill -9, the saved model's scores."""

import json
import os
import signal
import subprocess
import sys

import pytest

import evomerge
from evomerge import run
from evomerge.candidate.trial import Failure, FailureKind, Outcome
from evomerge.config import Campaign
from evomerge.errors import CampaignStopped, ResultsError
from evomerge.progress import NoDisplay
from evomerge.search.samplers.descent import CHECKPOINTS
from evomerge.single import score_on_campaign
from evomerge.store import Store, read_texts
from tests.small_campaign import TEXT, changed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def campaign(folder):
    (folder / "c.yaml").write_text(TEXT)
    return Campaign.load(folder / "c.yaml")


@pytest.fixture(scope="module")
def result(campaign):
    return evomerge.search(campaign)


def numbers(folder):
    with Store.open(folder, write=False) as store:
        return [trial.number for trial in store.trials() if trial.outcome is not None]


def points(folder):
    with Store.open(folder, write=False) as store:
        return [trial.params for trial in store.trials()]


def test_a_campaign_leaves_every_file_of_the_results_folder(result):
    names = {path.name for path in result.folder.iterdir()}
    assert {"campaign.yaml", "study.db", "leaderboard.json", "leaderboard.md", "best"} <= names
    best = {path.name for path in (result.folder / "best").iterdir()}
    assert {"config.json", "tokenizer.json", "recipe.yaml", "README.md"} <= best
    assert numbers(result.folder) == list(range(6))


def test_the_leaderboard_has_parents_baselines_and_a_winner_on_holdout(result):
    board = json.loads((result.folder / "leaderboard.json").read_text())
    scored = [row for row in board["rows"] if "holdout" in row["splits"]]
    assert [row["kind"] for row in scored] == [
        "base",
        "expert",
        "expert",
        *["baseline"] * 3,
        "winner",
    ]
    assert sum("tuned" in row["name"] for row in scored) == 1
    tasks = scored[-1]["splits"]["holdout"]["tasks"]
    assert {"exact_match", "gold_loglikelihood"} <= set(tasks["zoo_facts"])
    assert tasks["zoo_facts"]["exact_match"]["n"] == 16


def test_quantised_scores_are_those_of_the_saved_model_quantised(campaign, tmp_path):
    pytest.importorskip("bitsandbytes")
    settings = campaign.scorer.model_copy(update={"quantise": "nf4"})
    quantised = campaign.model_copy(update={"scorer": settings})
    result = evomerge.search(changed(quantised, tmp_path / "out", trials=1, finalists=1))
    (winner,) = result.leaderboard.winners
    scores = winner.splits["holdout"].tasks["zoo_facts"]
    alone = score_on_campaign(str(tmp_path / "out/best"), tmp_path / "out", "holdout")
    values = alone.scored.tasks["zoo_facts"].metrics["gold_loglikelihood"]
    assert scores["gold_loglikelihood"].value == pytest.approx(sum(values) / len(values), rel=1e-6)
    assert "weights quantised to nf4" in (tmp_path / "out/leaderboard.md").read_text()
    assert "quantization_config" not in (tmp_path / "out/best/config.json").read_text()


def test_what_items_ask_and_models_answered_is_kept(result):
    with Store.open(result.folder, write=False) as store:
        texts = read_texts(store.arrays, "holdout")
        rows = {
            one.key: one.outcome.scores for one in store.evaluations() if one.split == "holdout"
        }
        trials = [one.outcome.scores for one in store.trials()]
        steps = store.gradient_steps()
        began = [one.outcome.cost.began for one in store.trials()]
    for scores in rows.values():
        for task, each in scores.items():
            right = [
                answer.strip() == gold.strip()
                for answer, (_, gold) in zip(each.answers, texts[task], strict=True)
            ]
            assert right == [value == 1 for value in each.metrics["exact_match"]]
    assert any(text.prompt for text in texts["zoo_facts"])
    assert not any(each.answers for scores in trials for each in scores.values())
    assert began == sorted(began)
    assert all(step.worker and step.cost.began for step in steps)


def test_the_saved_model_scores_what_the_leaderboard_says(result):
    scores = score_on_campaign(str(result.folder / "best"), result.folder, "holdout")
    with Store.open(result.folder, write=False) as store:
        told = store.evaluation(result.best.key, "holdout")
    assert scores.scored.tasks == told.scores


def test_it_loads_with_plain_transformers(result):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(result.folder / "best")
    tokenizer = AutoTokenizer.from_pretrained(result.folder / "best")
    assert model.config.vocab_size >= len(tokenizer)


def test_all_trials_as_a_table_and_as_an_optuna_study(result):
    table = result.to_pandas()
    assert list(table["number"]) == list(range(6))
    assert len(result.study.trials) == 6


def test_an_existing_folder_is_refused_and_left_alone(result, campaign):
    before = (result.folder / "study.db").read_bytes()
    with pytest.raises(ResultsError, match=r"resume.*--out.*--force"):
        run.search(campaign)
    assert (result.folder / "study.db").read_bytes() == before


def test_resume_adds_trials_and_runs_none_twice(result):
    before = points(result.folder)
    run.resume(result.folder, trials=2)
    assert numbers(result.folder) == list(range(8))
    assert points(result.folder)[:6] == before


def test_resume_refuses_changed_models(result, monkeypatch):
    monkeypatch.setattr("evomerge.preflight.family.fingerprint", lambda model: f"other {model}")
    with pytest.raises(ResultsError, match='the models changed since the campaign began: "base"'):
        run.resume(result.folder, trials=5)
    with Store.open(result.folder, write=False) as store:  # what is refused leaves the budget alone
        assert store.campaign.search.trials == len(store.trials())


@pytest.fixture
def nan_logits(monkeypatch):
    """Every trial fails alike; parents and naive merges are scored."""
    whole = run.open_pool

    def broken(*args, **kwargs):
        pool = whole(*args, **kwargs)
        evaluate = pool.next

        def next_(*args):
            job, outcome = evaluate(*args)
            if job.entry.number is not None:
                outcome = Outcome(failure=Failure(FailureKind.NOT_FINITE, "NaN logits"))
            return job, outcome

        monkeypatch.setattr(pool, "next", next_)
        return pool

    monkeypatch.setattr(run, "open_pool", broken)


@pytest.mark.parametrize(
    ("trials", "reason"),
    [
        (20, r"first 5 candidates all failed alike \(not finite\): NaN logits; for the traceback"),
        (3, r"no trial was scored.* failed 3 times, not finite: NaN logits \(trial 0, trial 1, tr"),
    ],
)
def test_a_campaign_all_of_whose_candidates_fail_stops_and_says_why(
    campaign, tmp_path, nan_logits, trials, reason
):
    with pytest.raises(CampaignStopped, match=reason):
        run.search(campaign.override(out=tmp_path / "out", trials=trials))
    assert len(numbers(tmp_path / "out")) == min(trials, 5)


def test_experts_may_be_called_as_rows_are(campaign, tmp_path):
    named = [
        expert.model_copy(update={"name": name})
        for expert, name in zip(campaign.models.experts, ("ties", "trial 0"), strict=True)
    ]
    small = changed(campaign, tmp_path / "out", sampler="random", trials=2, finalists=1)
    models = small.models.model_copy(update={"experts": tuple(named)})
    items = small.items.model_copy(update={"search": 4, "select": 4, "holdout": 4})
    run.search(small.model_copy(update={"items": items, "models": models}))
    board = json.loads((tmp_path / "out" / "leaderboard.json").read_text())
    rows = {row["key"]: row for row in board["rows"]}
    assert {"expert:ties", "expert:trial 0", "baseline:ties"} < set(rows)
    assert len(rows) == len(board["rows"])
    for key in ("expert:ties", "expert:trial 0", "baseline:ties"):
        assert set(rows[key]["splits"]) == {"search", "select", "holdout"}
    assert rows["expert:ties"]["splits"] != rows["baseline:ties"]["splits"]
    assert {one["against_key"].split(":")[0] for one in board["tests"]["paired"]} == {
        "expert",
        "baseline",
    }


def heed_ctrl_c():
    """A test run in the background ignores Ctrl-C, and its children would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupted_search(file, out, kill, after, *options):
    """Search in a process of its own, interrupted after so many trials; return its last lines."""
    command = [sys.executable, "-m", "evomerge", "search", file, "--out", out, *options]
    driver = subprocess.Popen(
        [*map(str, command), "--display", "json"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=heed_ctrl_c,
    )
    for line in driver.stderr:
        if f'"stage": "search", "done": {after}' in line:
            break
    driver.send_signal(kill)
    rest = driver.communicate(timeout=60)[1]
    assert driver.returncode == (130 if kill == signal.SIGINT else -kill)
    return rest.splitlines()


def test_interrupted_by_ctrl_c_and_resumed_it_asks_for_the_same_trials(result, folder, tmp_path):
    out = tmp_path / "out"
    said = interrupted_search(folder / "c.yaml", out, signal.SIGINT, 3, "--trials", "60")
    assert said[-1].endswith(f"interrupted; go on with: evomerge resume {out}")
    assert 3 <= len(numbers(out)) < 60
    resumed = run.resume(out)
    assert numbers(out) == list(range(60))
    assert points(out)[:6] == points(result.folder)[:6]
    assert resumed.best.number is not None


def steps(folder):
    """The steps of descents, apart from when and how exactly they came."""
    with Store.open(folder, write=False) as store:
        return [(s.descent, s.step, s.params, s.items, s.loss) for s in store.gradient_steps()]


def values(folder):
    with Store.open(folder, write=False) as store:
        return [trial.values for trial in store.trials()]


def test_down_the_gradient_killed_and_resumed_it_asks_for_the_same_steps_and_trials(
    campaign, folder, tmp_path
):
    file = folder / "gradient.yaml"
    file.write_text(TEXT.replace("sampler: cmaes", "sampler: auto"))
    whole = evomerge.search(Campaign.load(file).override(out=tmp_path / "whole"))
    with Store.open(whole.folder, write=False) as store:
        assert store.campaign.search.sampler == "gradient"
        naive = max(baseline.values[0] for baseline in store.baselines())
    assert len(steps(whole.folder)) == CHECKPOINTS[-1]
    assert max(value for (value,) in values(whole.folder)) > naive
    assert whole.best.number is not None
    out = tmp_path / "killed"
    interrupted_search(file, out, signal.SIGKILL, 1)
    assert 1 <= len(numbers(out)) < 6
    run.resume(out)
    assert steps(out) == steps(whole.folder)
    assert points(out) == points(whole.folder)
    assert values(out) == values(whole.folder)
    assert numbers(out) == list(range(6))


@pytest.mark.parametrize(
    ("experts", "task"),
    [
        pytest.param("facts, translation, formats", "formats", marks=pytest.mark.slow),
        ("facts", ""),
    ],
)
def test_a_family_that_changed_starts_where_the_old_one_ended(
    result, folder, tmp_path, experts, task
):
    """An expert joins with its task: at or above the old best in the others. One leaves: it works."""
    named = ", ".join(f"zoo:{name}" for name in experts.split(", "))
    text = TEXT.replace("zoo:facts, zoo:translation", named)
    if task:
        goal = f"  - {{task: zoo_{task}, metric: gold_loglikelihood}}\n"
        text = text.replace("tasks_path:", f"{goal}tasks_path:")
    text = text.replace("trials: 6", f"trials: 5, warm_start: {result.folder}")
    (folder / "warm.yaml").write_text(text)
    evomerge.search(Campaign.load(folder / "warm.yaml").override(out=tmp_path / "out"))
    found = on_two_tasks(tmp_path / "out")
    assert list(found) == list(range(5))
    if "formats" in experts:
        old = on_two_tasks(result.folder)
        assert found[0] == pytest.approx(old[result.best.number], abs=1e-5)
        assert max(found[n] for n in range(4)) >= max(old.values()) - 1e-5
        first = points(tmp_path / "out")[0]
        assert [value for name, value in first.items() if "formats" in name] == [0.0, 0.0]


def on_two_tasks(folder):
    """The mean of each trial over facts and translation, whatever else it was scored on."""
    with Store.open(folder, write=False) as store:
        outcomes = {trial.number: trial.outcome for trial in store.trials()}
    return {
        number: sum(
            outcome.scores[f"zoo_{task}"].values["gold_loglikelihood"].value / 2
            for task in ("facts", "translation")
        )
        for number, outcome in outcomes.items()
    }


def racing(campaign, out, **settings):
    raced = changed(campaign, out, pruner="race", **settings)
    return raced.model_copy(update={"items": raced.items.model_copy(update={"search": 24})})


def test_where_every_candidate_is_given_up_the_likeliest_are_scored_on_select(campaign, tmp_path):
    raced = evomerge.search(
        racing(campaign, tmp_path / "out", sampler="random", trials=3, finalists=2)
    )
    with Store.open(raced.folder, write=False) as store:
        states = {trial.state for trial in store.trials()}
        estimates = {trial.number: trial.values[0] for trial in store.trials()}
        finalists = [
            row for row in store.evaluations() if row.split == "select" and row.number is not None
        ]
    assert states == {"pruned"}
    best = sorted(estimates, key=estimates.get, reverse=True)[:2]
    assert sorted(row.name for row in finalists) == sorted(f"trial {number}" for number in best)
    assert all(row.outcome.cost.items == 2 * 8 for row in finalists)  # in full
    assert raced.best.number in best
    assert (raced.folder / "best" / "model.safetensors").is_file()


def test_candidates_that_cannot_win_are_given_up(campaign, tmp_path):
    raced = evomerge.search(racing(campaign, tmp_path / "out", sampler="cmaes", trials=20))
    with Store.open(raced.folder, write=False) as store:
        trials = store.trials()
        board = {row.name for row in store.evaluations() if row.kind == "finalist"}
    pruned = [trial for trial in trials if trial.state == "pruned"]
    assert pruned
    assert len(trials) == 20
    for trial in pruned:
        assert trial.outcome.cost.items < 2 * 24
        assert trial.values is not None
        assert f"trial {trial.number}" not in board


@pytest.mark.slow
def test_two_workers_in_turn_ask_for_the_same_trials_interrupted_or_not(campaign, tmp_path):
    class Impatient(NoDisplay):
        def show(self, progress):
            if progress.stage == "search" and progress.done == 1:
                raise KeyboardInterrupt

    workers = campaign.workers.model_copy(update={"count": 2})
    both = [
        changed(campaign, tmp_path / name, deterministic=True, sampler="gradient").model_copy(
            update={"workers": workers}
        )
        for name in ("whole", "broken")
    ]
    evomerge.search(both[0])
    with pytest.raises(KeyboardInterrupt):
        evomerge.search(both[1], display=Impatient())
    assert len(numbers(tmp_path / "broken")) < 6
    run.resume(tmp_path / "broken")
    assert len({step[0] for step in steps(tmp_path / "whole")}) > 1  # a path a worker
    for found in (numbers, points, values, steps):
        assert found(tmp_path / "broken") == found(tmp_path / "whole")
