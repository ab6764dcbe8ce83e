import json
import shutil
from pathlib import Path

import pytest

from evomerge.config import Campaign
from evomerge.errors import CampaignError, UserError
from evomerge.kinds import KINDS
from evomerge.merge import quantise
from evomerge.preflight import check
from evomerge.preflight.check import check_needs
from evomerge.preflight.warnings import without_gradient
from evomerge.scoring import gold_count
from evomerge.space import Needs

ROOT = Path(__file__).parents[2]
SPACES = sorted((ROOT / "search_spaces").glob("*.yaml"))
NEED_OTHER_MODELS = {"seven_billion", "smollm2", "smollm2_cmaes", "smollm2_gp"}


def preflight(path):
    return check.preflight(Campaign.load(path), path)


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_shipped_campaign_file_is_accepted(path):
    campaign = Campaign.load(path)
    assert campaign.name == path.stem
    if path.stem in NEED_OTHER_MODELS:
        KINDS["merge"].check(campaign.space)
        check.check_sampler(campaign)
    else:
        assert check.preflight(campaign, path).space.distributions


def test_every_line_of_the_template_for_large_models_has_a_comment():
    lines = (ROOT / "search_spaces" / "seven_billion.yaml").read_text().splitlines()
    assert all("#" in line for line in lines if line.strip())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("task_arithmetic", "task_arithmetics", 'c.yaml:7: space.method: unknown method "task_arithmetics"'),
        ("weight:", "wieght:", 'c.yaml:10: space.parameters.wieght: unknown parameter "wieght" of task_ar'),
        ("weight: {low: 0.0, high: 1.2}", "lambda: {low: 0.0, high: 1.2}", "needs the parameter weight"),
        ("weight: {low: 0.0, high: 1.2}", "weight: 0.3", "space.parameters: nothing is searched"),
        (
            "task_arithmetic\n  layers: 2\n  parameters:",
            "ties\n  layers: 2\n  parameters:\n    density: {low: -0.5, high: 1.0}",
            "c.yaml:10: space.parameters.density.low: found -0.5, expected density in [0, 1]",
        ),
        (
            "task_arithmetic\n  layers: 2\n  parameters:",
            "ties\n  layers: 2\n  parameters:\n    density: 1.5",
            "c.yaml:10: space.parameters.density: found 1.5, expected density in [0, 1]",
        ),
        ("{low: 0.0, high: 1.2}", "true", "c.yaml:10: space.parameters.weight: found True, expected"),
        ("layers: 2", "layers: 9", "c.yaml:8: space.layers: found 9 groups, but the models have 4 layers"),
        ("layers: 2", "layers: 2\n  coarse: 2", "c.yaml:9: space.coarse: coarse was removed: "),
        (
            "task_arithmetic\n  layers: 2\n  parameters:\n    weight: {low: 0.0, high: 1.2}",
            "slerp\n  subsets: true\n  parameters:\n    t: {low: 0.0, high: 1.0}",
            "c.yaml:8: space.subsets: an expert is left out by weight 0, and slerp has no weight",
        ),
        (
            "task_arithmetic\n  layers: 2\n  parameters:",
            "ties\n  layers: 2\n  parameters:\n    density: {low: 0, high: 1, experts: {tools: 2}}",
            "c.yaml:10: space.parameters.density.experts.tools: found 2, expected density in [0, 1]",
        ),
        (
            "task_arithmetic\n  layers: 2\n  parameters:",
            "ties\n  layers: 2\n  parameters:\n    density: {low: 0, high: 1, sum: 3}",
            "c.yaml:10: space.parameters.density.sum: found 3, expected density in [0, 1]",
        ),
        (
            "task_arithmetic\n",
            "[task_arithmetic, passthrough]\n",
            "space.parameters: passthrough takes exactly 1 model(s), found 2",
        ),
        ("zoo_tools", "zoo_tolls", 'c.yaml:13: objectives.1.task: unknown task "zoo_tolls"'),
        ("metric: exact_match}", "metric: exact}", 'c.yaml:12: objectives.0.metric: task "zoo_facts" has no'),
        ("zoo:tools", "zoo:tolls", "c.yaml:4: models.experts.1: the zoo has no model"),
        ("base: zoo:base", "base: ./none", "c.yaml:3: models.base: "),
        ("search: 8", "search: 999999", "999999"),
        ("name: small", "name: small\nmode: pareto", "c.yaml:17: search.sampler: cmaes searches one value"),
        ("benchmarks/tasks", "no/such", "no/such"),
        (
            "trials: 4",
            "item_evaluations: 15",
            "c.yaml:16: search.item_evaluations: found 15, expected 16 or more: so many items are scored",
        ),
        (
            "method: task_arithmetic\n  layers: 2\n  parameters:\n    weight: {low: 0.0, high: 1.2}",
            "kind: stack\nscorer: {quantise: int8}",
            'c.yaml:8: scorer.quantise: found "int8", but these candidates hold',
        ),
        ("name: small", "name: small\nscorer: {backend: hff}", 'c.yaml:2: scorer.backend: lm-eval offers no'),
        (
            "name: small",
            "name: small\ncosts: [{cost: generated_tokens}]\nscorer: {backend: hf}",
            'c.yaml:3: scorer.backend: found "hf", but generated_tokens are not counted by',
        ),
    ],
)  # fmt: skip
def test_what_models_and_tasks_refute_is_one_line_with_its_place(write, old, new, message):
    path = write(old, new)
    with pytest.raises(UserError) as caught:
        preflight(path)
    text = str(caught.value)
    assert message in text
    assert "\n" not in text
    assert list(path.parent.iterdir()) == [path]  # nothing written


def test_quantising_needs_bitsandbytes(write, monkeypatch):
    monkeypatch.setattr(quantise, "find_spec", lambda _: None)
    with pytest.raises(
        UserError, match=r"c\.yaml:2: scorer\.quantise: nf4 needs bitsandbytes; install"
    ):
        preflight(write("name: small", "name: small\nscorer: {quantise: nf4}"))


def test_a_sampler_without_gradients_by_some_dimensions_is_a_warning_by_all_an_error(write):
    text = "dare_linear\n  parameters:\n    density: {low: 0.1, high: 1.0, per: []}"
    path = write("task_arithmetic\n  layers: 2\n  parameters:", text)
    path.write_text(path.read_text().replace("sampler: cmaes", "sampler: gradient"))
    ready = preflight(path)
    (gradient,) = without_gradient(ready.space, ready.campaign.search.sampler)
    assert "there is no gradient by 1 of 3 dimensions (density)" in gradient
    path.write_text(path.read_text().replace("{low: 0.0, high: 1.2}", "1.0"))
    with pytest.raises(UserError, match=r'c\.yaml:16: search\.sampler: found "gradient", but no'):
        preflight(path)


def test_more_items_than_the_task_has_names_both_numbers(write):
    with pytest.raises(UserError, match=r"zoo_facts.*\d+.*"):
        preflight(write("holdout: 8", "holdout: 100000"))


def test_the_line_is_left_out_where_no_file_is_given(write):
    campaign = Campaign.load(write("layers: 2", "layers: 9"))
    with pytest.raises(UserError, match=r"^space\.layers: found 9 groups"):
        check.preflight(campaign)


def test_an_expert_of_another_vocabulary_is_refused(write, llama_family, tmp_path_factory):
    expert = tmp_path_factory.mktemp("copies") / "expert"
    shutil.copytree(llama_family.experts[0], expert)
    with pytest.raises(UserError, match=r"c\.yaml:4: models\.experts\.1"):
        preflight(write("zoo:tools", str(expert)))


@pytest.fixture
def half_answered(write, tmp_path):
    """Write a campaign on a task of which every other document has an empty gold answer."""
    rows = [{"q": f"Note: {n}", "a": "" if n % 2 else str(n)} for n in range(60)]
    data = tmp_path / "half.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "half.yaml").write_text(
        f"""
task: half
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{q}}}}"
doc_to_target: "{{{{a}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 4, do_sample: false}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""
    )

    def campaign(metric):
        path = write("sampler: cmaes", "sampler: auto")
        text = path.read_text()
        goals = text[text.index("objectives:") : text.index("items:")]
        new = f"objectives: [{{task: half, metric: {metric}}}]\ntasks_path: {tmp_path}\n"
        path.write_text(text.replace(goals, new))
        return path

    return campaign


def test_items_without_gold_answer_have_no_part_in_the_gradient(half_answered):
    ready = preflight(half_answered("exact_match"))
    assert ready.campaign.search.sampler not in ("auto", "cmaes")  # goes by the answers there are
    assert 0 < gold_count(ready.items, "half") < 8


def test_a_metric_on_gold_answers_is_refused_before_any_time_is_spent(half_answered):
    message = (
        r"c.yaml:\d+: objectives.0.metric: .*gold_exact_match needs a gold answer for every item"
    )
    with pytest.raises(UserError, match=message):
        preflight(half_answered("gold_exact_match"))


def test_broken_data_are_named_with_file_and_line(half_answered, tmp_path):
    path = half_answered("exact_match")
    (tmp_path / "half.jsonl").write_text('{"q": "a", "a": "b"}\n{"q": \n')
    message = r"c.yaml:\d+: objectives.0.task: .*half.jsonl:2: not valid JSON"
    with pytest.raises(UserError, match=message):
        preflight(path)


def test_mixtures_are_refused_where_a_worker_has_several_gpus(checked):
    ready = checked("count: auto", "count: 1, gpus: 2")
    line = r"workers\.gpus: found 2, but mixtures of experts are built on one GPU; take 1"
    with pytest.raises(CampaignError, match=line):
        check_needs(ready.campaign, Needs(feed_forwards=2), ready.items)
    check_needs(ready.campaign, Needs(whole_models=2), ready.items)
