import json
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge import single
from evomerge.errors import ModelError, ResultsError, TaskError

TASKS = Path(__file__).parents[1] / "benchmarks" / "tasks"


@pytest.fixture(scope="module")
def scores():
    return single.score_on_tasks(
        "zoo:facts", ["zoo_facts", "zoo_facts_mc"], tasks_path=TASKS, limit=12
    )


def test_every_metric_of_every_task_is_scored_on_the_first_items(scores):
    facts = scores.scored.tasks["zoo_facts"]
    assert len(facts.items) == 12
    assert facts.values["exact_match"].value > 0.5
    assert "gold_loglikelihood" in facts.values
    assert scores.scored.tasks["zoo_facts_mc"].values["acc"].value > 0.5


def test_the_results_are_those_of_lm_eval(scores):
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from evomerge import zoo

    theirs = lm_eval.simple_evaluate(
        HFLM(
            pretrained=str(zoo.resolve("zoo:facts")), dtype="float32", device="cpu", batch_size=12
        ),
        tasks=["zoo_facts", "zoo_facts_mc"],
        limit=12,
        bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
    )["results"]
    for task, metrics in theirs.items():
        ours = scores.results["results"][task]
        for name, value in metrics.items():
            if isinstance(value, float) and "stderr" not in name:
                assert ours[name] == value, (task, name)


@pytest.fixture(scope="module")
def odd_tasks(tmp_path_factory):
    """Tasks of which some documents, or all, have no gold answer, and a tag."""
    folder = tmp_path_factory.mktemp("odd")
    answers = {"some": ["3", "", "x", " "], "none": ["", "", ""]}
    for name, golds in answers.items():
        rows = [{"q": f"Note: {n}", "a": answer} for n, answer in enumerate(golds)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / f"{name}.yaml").write_text(
            f"""
task: {name}
tag: [odd]
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/{name}.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{q}}}}"
doc_to_target: "{{{{a}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 8, do_sample: false}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""
        )
    return folder


def test_empty_gold_answers_are_no_hindrance(odd_tasks, tmp_path):
    found = single.score_on_tasks("zoo:extraction", ["odd"], tasks_path=odd_tasks)  # the tag
    assert list(found.results["results"]) == ["none", "some"]
    assert found.results["results"]["some"]["exact_match,none"] == 0.0
    assert "exact_match,none" in found.results["results"]["none"]
    assert not any("gold" in key for key in found.results["results"]["none"])
    shown = single.table(found)
    assert "some: 2 of 4 items have no gold answer; gold_* metrics are over the others" in shown
    assert "none:" not in shown
    single.write_json(found, tmp_path / "scores.json")
    metrics = json.loads((tmp_path / "scores.json").read_text())["items"]["some"]["metrics"]
    assert [value is None for value in metrics["gold_exact_match"]] == [False, True, False, True]


def test_the_table_is_lm_evals(scores):
    shown = single.table(scores)
    assert "|zoo_facts" in shown.replace(" ", "")
    assert "exact_match" in shown
    assert "Stderr" in shown


def test_items_longer_than_the_context_are_told(scores):
    cut = replace(scores.scored.tasks["zoo_facts"], truncated=3)
    scored = replace(scores.scored, tasks={**scores.scored.tasks, "zoo_facts": cut})
    shown = single.table(replace(scores, scored=scored))
    assert "zoo_facts: 3 of 12 items are longer than the model's context" in shown
    assert "longer than" not in single.table(scores)


def test_the_file_holds_results_and_items(scores, tmp_path):
    single.write_json(scores, tmp_path / "new" / "scores.json")
    written = json.loads((tmp_path / "new" / "scores.json").read_text())
    assert written["results"]["zoo_facts_mc"]["acc,none"] > 0.5
    assert len(written["items"]["zoo_facts"]["metrics"]["exact_match"]) == 12
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["scores.json"]


def test_wrong_models_tasks_and_folders_are_refused(tmp_path):
    with pytest.raises(ModelError, match="zoo:facts"):
        single.score_on_tasks("zoo:fact", ["zoo_facts"], tasks_path=TASKS)
    with pytest.raises(TaskError, match="zoo_fatcs"):
        single.score_on_tasks("zoo:facts", ["zoo_fatcs"], tasks_path=TASKS)
    with pytest.raises(ResultsError, match="no such folder"):
        single.score_on_campaign("zoo:facts", tmp_path / "none", "holdout")
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"is a LoRA adapter; give BASE\+ADAPTER"):
        single.score_on_tasks(str(tmp_path), ["zoo_facts"], tasks_path=TASKS)
