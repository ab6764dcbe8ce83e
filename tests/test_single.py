import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge import single, zoo
from evomerge.config import Campaign, Objective
from evomerge.errors import ModelError, ResultsError, TaskError, UserError
from evomerge.tasks import tasks

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


def test_wrong_models_tasks_and_folders_are_refused(tmp_path, monkeypatch):
    own = tasks._manager(str(TASKS), False)
    monkeypatch.setattr(tasks, "_manager", lambda *_: own)  # lm-eval's own take long to index
    with pytest.raises(ModelError, match="zoo:facts"):
        single.score_on_tasks("zoo:fact", ["zoo_facts"], tasks_path=TASKS)
    with pytest.raises(TaskError, match="zoo_fatcs"):
        single.score_on_tasks("zoo:facts", ["zoo_fatcs"], tasks_path=TASKS)
    with pytest.raises(ResultsError, match="no such folder"):
        single.score_on_campaign("zoo:facts", tmp_path / "none", "holdout")
    with pytest.raises(UserError, match='device: found "xpu", which cannot be used here'):
        single.score_on_tasks("zoo:facts", ["zoo_facts"], tasks_path=TASKS, device="xpu")


def test_tasks_are_checked_before_the_model_is_loaded(monkeypatch):
    monkeypatch.setattr(single, "LiveModel", None)
    with pytest.raises(TaskError, match="90000 few-shot examples"):
        single.score_on_tasks("zoo:facts", ["zoo_facts"], tasks_path=TASKS, num_fewshot=90000)


def values(found):
    return found.results["results"]["zoo_facts"]


def test_pickles_are_read_where_that_is_allowed(scores, tmp_path):
    folder = zoo.resolve("zoo:facts")
    shutil.copytree(folder, tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "model" / "pytorch_model.bin")
    model, asked = str(tmp_path / "model"), {"tasks_path": TASKS, "limit": 12}
    with pytest.raises(ModelError, match="pickle"):
        single.score_on_tasks(model, ["zoo_facts"], **asked)
    found = single.score_on_tasks(model, ["zoo_facts"], allow_pickle=True, **asked)
    assert values(found) == values(scores)


@pytest.fixture
def adapter(tmp_path):
    """Changes nothing; its base is zoo:facts."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    base = zoo.resolve("zoo:facts")
    name = "model.layers.0.self_attn.q_proj"
    rows, columns = load_file(base / "model.safetensors")[f"{name}.weight"].shape
    key = f"base_model.model.{name}"
    lora = {
        f"{key}.lora_A.weight": torch.ones(2, columns),
        f"{key}.lora_B.weight": torch.zeros(rows, 2),
    }
    save_file(lora, folder / "adapter_model.safetensors")
    write_adapter_config(folder, str(base))
    return folder


def write_adapter_config(folder, base):
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    config |= {"base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def test_adapters_are_scored_on_their_base(scores, adapter):
    asked = {"tasks_path": TASKS, "limit": 12}
    for model in (str(adapter), f"zoo:facts+{adapter}"):
        assert values(single.score_on_tasks(model, ["zoo_facts"], **asked)) == values(scores)
    write_adapter_config(adapter, "/nowhere/at/all")
    with pytest.raises(ModelError, match=r"whose base_model_name_or_path is '/nowhere/at/all' .*"):
        single.score_on_tasks(str(adapter), ["zoo_facts"], **asked)
    write_adapter_config(adapter, None)
    with pytest.raises(ModelError, match=r"give BASE\+"):
        single.score_on_tasks(str(adapter), ["zoo_facts"], **asked)


def test_a_campaign_lends_base_and_permissions(adapter, monkeypatch, tmp_path):
    write_adapter_config(adapter, "/nowhere/at/all")
    settings = {
        "name": "small",
        "models": {"base": "zoo:facts", "experts": ["zoo:tools"], "allow_pickle": True},
        "space": {"method": "linear", "parameters": {"weight": {"low": 0.0, "high": 1.0}}},
        "objectives": [{"task": "zoo_facts", "metric": "exact_match"}],
        "items": {"search": 4, "select": 4, "holdout": 4},
        "tasks_path": str(TASKS),
        "scorer": {"allow_unsafe_code": True},
    }
    settings["models"] |= {"trust_remote_code": True, "dtype": "float32"}
    run = Campaign.model_validate(settings)
    asked = {}

    class Items(dict):
        digests = MappingProxyType({"zoo_facts": "other"})

    def watched(requests, **options):
        asked.update(options)
        return Items()

    checked = []

    def opened(model, **options):
        checked.append((model, options))

    store = SimpleNamespace(campaign=run, facts={"prompts": {"zoo_facts": "one"}})
    monkeypatch.setattr(single.Store, "open", lambda *_, **__: nullcontext(store))
    monkeypatch.setattr(single, "load_items", watched)
    monkeypatch.setattr(single, "open_checkpoint", opened)
    with pytest.raises(ResultsError, match='prompts of "zoo_facts" are not those of the campaign'):
        single.score_on_campaign(str(adapter), tmp_path, "select")
    assert asked["trust_remote_code"]
    assert asked["allow_unsafe_code"]
    model, options = checked[0]
    assert model == f"zoo:facts+{adapter}"
    assert options == {"trust_remote_code": True, "allow_pickle": True}


def test_a_divergence_from_the_teacher_is_left_out_as_none_is_there():
    goals = [
        Objective(task="zoo_facts_mc", metric="gold_loglikelihood", report="teacher_divergence"),
        Objective(task="zoo_tools", metric="gold_loglikelihood", report="exact_match"),
    ]
    assert single._wanted_metrics(SimpleNamespace(objectives=goals)) == {
        "zoo_facts_mc": ("gold_loglikelihood",),
        "zoo_tools": ("gold_loglikelihood", "exact_match"),
    }


def test_where_nothing_can_be_written_is_found_out_before(tmp_path):
    single.refuse_output(tmp_path / "new" / "scores.json")
    single.refuse_output(Path("/dev/null"))
    with pytest.raises(UserError, match=r"is a folder; expected a file.*scores\.json"):
        single.refuse_output(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/x\.json: cannot be written: .*another --out"):
        single.refuse_output(tmp_path / "file" / "x.json")
    with pytest.raises(UserError, match="cannot be written: File name too long"):
        single.refuse_output(tmp_path / ("x" * 250 + ".json"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_device_is_written_to_not_replaced(scores):
    single.write_json(scores, Path("/dev/null"))
    assert Path("/dev/null").is_char_device()
