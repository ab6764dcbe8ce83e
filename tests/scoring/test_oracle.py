"""Every metric, every log-likelihood and every text against stock lm-eval, on tasks of real formats.

Items are real ones of BIG-Bench Hard and GSM8K where their folder stands beside the project, and the
zoo's, whose models know many of the answers.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge import zoo
from evomerge.scoring import Scorer
from evomerge.tasks import PromptStyle, SplitPlan, TaskRequest, load_items
from evomerge.tasks.metrics import is_gold

ROOT = Path(__file__).parents[2]
DATA = ROOT / ".." / "shared" / "data"
ZOO_TASKS = ROOT / "benchmarks" / "tasks"
SMOLLM2 = os.environ.get("EVOMERGE_SMOLLM2")
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data with real items")

LOADER = """
import json
import re
from pathlib import Path

import datasets


def bbh(name, **_):
    docs = json.loads((Path(__file__).parent / "bbh" / f"{name}.json").read_text())["examples"]
    for doc in docs:
        question, _, options = doc["input"].partition("Options:")
        choices = re.findall(r"^(?:\\([A-Z]\\)|-) (.*)$", options, re.MULTILINE) or ["True", "False"]
        letters = [f"({chr(65 + i)})" for i in range(len(choices))]
        named = letters if doc["target"] in letters else choices
        doc |= {"question": question.strip(), "choices": choices}
        doc["label"] = named.index(doc["target"]) if doc["target"] in named else 0
    return {"train": datasets.Dataset.from_list(docs[-20:]), "test": datasets.Dataset.from_list(docs[:60])}


def gsm8k(**_):
    lines = (Path(__file__).parent / "gsm8k_test_400.jsonl").read_text().splitlines()
    docs = [json.loads(line) for line in lines]
    return {"train": datasets.Dataset.from_list(docs[-20:]), "test": datasets.Dataset.from_list(docs[:60])}
"""

CHOOSE = """
task: {task}
custom_dataset: !function loader.bbh
dataset_kwargs: {{name: {name}}}
output_type: multiple_choice
training_split: train
fewshot_split: train
test_split: test
description: "Choose the right answer.\\n\\n"
doc_to_text: "Q: {{{{question}}}}\\nA:"
doc_to_choice: choices
doc_to_target: label
num_fewshot: {shots}
{more}
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""

TASKS = {
    "dates": CHOOSE.format(
        task="dates", name="date_understanding", shots=3, more="fewshot_config: {sampler: first_n}"
    ),
    "deduction": CHOOSE.format(
        task="deduction", name="logical_deduction_three_objects", shots=1, more=""
    ),
    "navigation": CHOOSE.format(task="navigation", name="navigate", shots=0, more=""),
    "reasoning": """
group: reasoning
task: [dates, deduction, navigation]
aggregate_metric_list:
  - {metric: acc, aggregation: mean, weight_by_size: true}
  - {metric: acc_norm, aggregation: mean, weight_by_size: false}
""",
    "sorting": """
task: sorting
custom_dataset: !function loader.bbh
dataset_kwargs: {name: word_sorting}
output_type: generate_until
training_split: train
test_split: test
doc_to_text: "{{input}}\\nSorted:"
doc_to_target: target
num_fewshot: 2
fewshot_config: {sampler: first_n}
generation_kwargs: {until: ["</s>", "\\n\\n", "Sort"], max_gen_toks: 24, do_sample: false, temperature: 0.0}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true}
  - {metric: bleu}
""",
    "sums": """
task: sums
custom_dataset: !function loader.gsm8k
output_type: generate_until
training_split: train
fewshot_split: train
test_split: test
doc_to_text: "Q: {{question}}\\n\\nA:"
doc_to_target: " {{answer.split('### ')[-1].rstrip()}}"
num_fewshot: 2
fewshot_config: {sampler: first_n, doc_to_target: "{{answer}}"}
generation_kwargs: {until: ["Q:", "</s>", "<|im_end|>"], max_gen_toks: 16, do_sample: false}
filter_list:
  - name: strict-match
    filter:
      - {function: regex, regex_pattern: "The answer is (\\\\-?[0-9\\\\.\\\\,]+)."}
      - {function: take_first}
  - name: flexible-extract
    filter:
      - {function: regex, group_select: -1, regex_pattern: "(-?[$0-9.,]{2,})|(-?[0-9]+)"}
      - {function: take_first}
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
    ignore_punctuation: false
    regexes_to_ignore: [",", "\\\\$", "(?s).*#### ", "\\\\.$"]
""",
    "sums_voted": """
task: sums_voted
include: sums.yaml
repeats: 4
num_fewshot: 1
filter_list:
  - name: vote
    filter:
      - {function: regex, regex_pattern: "([0-9a-z])"}
      - {function: majority_vote}
      - {function: take_first}
""",
    "text": """
task: text
custom_dataset: !function loader.gsm8k
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{question}} {{answer}}"
metric_list:
  - {metric: word_perplexity}
  - {metric: byte_perplexity}
  - {metric: bits_per_byte}
""",
    "ending": """
task: ending
custom_dataset: !function loader.gsm8k
output_type: loglikelihood
test_split: test
doc_to_text: "{{question.split(' ')[:-1] | join(' ')}}"
doc_to_target: "{{' ' ~ question.split(' ')[-1]}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
}
REAL = ("reasoning", "sorting", "sums", "sums_voted", "text", "ending")
CHATTED = ("dates", "sums", "sorting")


@pytest.fixture(scope="module")
def real_tasks(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("real")
    (folder / "loader.py").write_text(LOADER)
    for name in ("bbh", "gsm8k_test_400.jsonl"):
        (folder / name).symlink_to((DATA / name).resolve())
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text(text)
    return str(folder)


@needs_data
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_neox", "gemma2"])
def test_real_items(
    subject: Any, real_tasks: str, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = subject(architecture)
    _with_context(one, 1200, monkeypatch)  # some few-shot prompts are longer: those are cut
    # Gemma's window is shorter than the prompts, so each stands alone: a few do.
    limit = 1 if architecture == "gemma2" else 3
    compare(one.module, one.tokenizer, real_tasks, REAL, limit=limit)


@needs_data
def test_real_items_as_a_conversation(
    subject: Any, real_tasks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = subject("llama")
    _with_context(one, 3000, monkeypatch)
    prompt = PromptStyle(True, True, "Answer as briefly as you can.")
    compare(one.module, one.tokenizer, real_tasks, CHATTED, limit=2, prompt=prompt)


def test_the_zoo() -> None:
    names = ("zoo", "zoo_mc")
    folder = zoo.resolve("zoo:extraction")
    module = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    values = compare(module, tokenizer, str(ZOO_TASKS), names, limit=4)
    assert 0 < values["zoo"]["exact_match"] < 1
    assert 0 < values["zoo_mc"]["acc"] < 1


@needs_data
@pytest.mark.slow
@pytest.mark.skipif(not SMOLLM2, reason="takes minutes: set EVOMERGE_SMOLLM2 to a model folder")
def test_smollm2(real_tasks: str) -> None:
    module = AutoModelForCausalLM.from_pretrained(SMOLLM2, dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(SMOLLM2)
    names = ("reasoning", "sums_voted", "text", "ending")
    values = compare(module, tokenizer, real_tasks, names, limit=2)
    assert values["ending"]["acc"] > 0


def compare(
    module: Any,
    tokenizer: Any,
    tasks_path: str,
    names: Sequence[str],
    *,
    limit: int,
    prompt: PromptStyle = PromptStyle(),  # noqa: B008 - frozen
) -> dict[str, dict[str, float]]:
    """Compare all that lm-eval says of the first documents; return our figures."""
    items = load_items(
        [TaskRequest(name) for name in names],
        tokenizer=tokenizer,
        tasks_path=tasks_path,
        plan=SplitPlan({"search": limit * 5 if "zoo" in names else limit * 3}, first=True),
        prompt=prompt,
    )
    metrics = {name: tuple(m for m in items.metrics(name) if not is_gold(m)) for name in names}
    scorer = Scorer(items)
    scored = scorer.score(module, "search", metrics)
    assert scorer.score(module, "search", metrics) == scored  # now with drafts
    samples = {}
    for name in names:
        for leaf in items.leaves(name, "search"):
            documents = list(leaf.task.eval_docs)
            samples[leaf.name] = [documents.index(doc) for doc in leaf.docs]
    stock = simple_evaluate(
        model=HFLM(pretrained=module, tokenizer=tokenizer, batch_size=1),
        tasks=list(names),
        task_manager=TaskManager(include_path=tasks_path, include_defaults=False),
        samples=samples,
        bootstrap_iters=0,
        apply_chat_template=prompt.apply_chat_template,
        fewshot_as_multiturn=prompt.fewshot_as_multiturn,
        system_instruction=prompt.system_instruction,
    )
    found = {**scored.tasks, **scored.subtasks}
    for name, scores in found.items():
        for metric, estimate in scores.values.items():
            base, _, kind = metric.partition(",")
            keys = [key for key in stock["results"][name] if key.split(",")[0] == base]
            (key,) = [key for key in keys if not kind or key == metric]
            expected = stock["results"][name][key]
            value = estimate.value
            if (
                metric == "perplexity"
            ):  # exp of a float32 sum: rounding of the sum is what may differ
                value, expected = math.log(value), math.log(expected)
            assert value == pytest.approx(expected, rel=1e-5, abs=1e-6), (name, metric)
    for name in names:
        for leaf in items.leaves(name, "search"):
            _compare_answers(leaf, stock["samples"][leaf.name])
    return {
        name: {metric: each.value for metric, each in scores.values.items()}
        for name, scores in found.items()
    }


def _compare_answers(leaf: Any, samples: Sequence[Any]) -> None:
    stock = {json.dumps(sample["doc"], sort_keys=True): sample["resps"] for sample in samples}
    for doc, requests in zip(leaf.docs, leaf.requests, strict=True):
        answers = stock[json.dumps(doc, sort_keys=True)]
        for request, expected in zip(requests, answers, strict=True):
            assert len(request.resps) == len(expected)
            for found, each in zip(request.resps, expected, strict=True):
                if isinstance(each, str):
                    assert found == each
                elif isinstance(each, tuple | list):
                    assert found[0] == pytest.approx(each[0], rel=1e-6, abs=1e-4)
                    assert found[1] == each[1]
                else:
                    assert found == pytest.approx(each, rel=1e-6, abs=1e-4)


def _with_context(subject: Any, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject.module.config, "max_position_embeddings", length)
    monkeypatch.setattr(subject.tokenizer, "model_max_length", length)
