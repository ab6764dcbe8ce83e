"""Tiny models whose answers depend on what they read, and lm-eval tasks some of whose golds they hit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import pre_tokenizers
from transformers import (
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    GenerationConfig,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from evomerge.scoring import Scorer
from evomerge.tasks import Items, PromptStyle, SplitPlan, TaskRequest, load_items

ARCHITECTURES = ("llama", "qwen2", "gpt_neox", "gemma2")
WORDS = ["red", "green", "blue", "apple", "pear", "stone", "river", "cloud", "seven", "nine"]

_SIZES = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

DOCS = """
import json
from pathlib import Path

import datasets


def load(**_):
    data = json.loads((Path(__file__).parent / "docs.json").read_text())
    return {name: datasets.Dataset.from_list(docs) for name, docs in data.items()}


def aims(doc, results):
    sums = [value for value, _ in results]
    found = {"acc": float(sums.index(max(sums)) == doc["label"]), "words": len(doc["question"])}
    return found | ({"odd": 1.0} if doc["label"] % 2 else {})


def keep_letters(resps, docs):
    return [["".join(c for c in text if c.isalpha()) for text in resp] for resp in resps]
"""

TASKS = {
    "choice": """
task: choice
custom_dataset: !function docs.load
output_type: multiple_choice
training_split: train
test_split: test
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: "{{label}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: brier_score, aggregation: brier_score, higher_is_better: false}
""",
    "choice_shots": """
task: choice_shots
include: choice.yaml
num_fewshot: 3
fewshot_split: train
""",
    "written": """
task: written
custom_dataset: !function docs.load
output_type: generate_until
training_split: train
test_split: test
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: answer
target_delimiter: ""
generation_kwargs: {until: ["\\n", "ab", "}"], max_gen_toks: 24}
filter_list:
  - name: whole
    filter: [{function: take_first}]
  - name: first
    filter: [{function: regex, regex_pattern: "(\\\\S)"}, {function: take_first}]
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
""",
    "repeated": """
task: repeated
include: written.yaml
repeats: 3
num_fewshot: 2
filter_list:
  - name: vote
    filter: [{function: majority_vote}, {function: take_first}]
""",
    "said": """
task: said
custom_dataset: !function docs.load
output_type: loglikelihood
test_split: test
doc_to_text: "{{question}} "
doc_to_target: answer
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "rolling": """
task: rolling
custom_dataset: !function docs.load
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: long
metric_list:
  - {metric: word_perplexity}
  - {metric: byte_perplexity}
  - {metric: bits_per_byte}
""",
    "several": """
task: several
include: choice.yaml
doc_to_target: "{{[label, (label + 1) % 4]}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "both": """
group: both
task: [choice, choice_shots]
aggregate_metric_list:
  - {metric: acc, weight_by_size: true}
  - {metric: acc_norm, weight_by_size: false}
""",
    "acc_only": """
task: acc_only
include: choice.yaml
task_alias: by accuracy
tag: [marked]
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "judged": """
task: judged
include: choice.yaml
tag: [marked]
process_results: !function docs.aims
""",
    "mixed": """
group: mixed
group_alias: a mixture
task: [choice, acc_only, written]
aggregate_metric_list:
  - {metric: acc, weight_by_size: true}
  - {metric: exact_match, weight_by_size: false, filter_list: first}
metadata: {version: 3.0}
""",
    "loose": """
group: loose
task: [said]
""",
    "nested": """
group: nested
task: [mixed, loose, judged]
aggregate_metric_list:
  - {metric: acc, weight_by_size: false}
""",
}


@dataclass(frozen=True)
class Subject:
    """A tiny model with its tokenizer and tasks."""

    module: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    tasks_path: str

    def items(self, *names: str, prompt: PromptStyle = PromptStyle(), **counts: int) -> Items:  # noqa: B008
        return load_items(
            [TaskRequest(name) for name in names],
            tokenizer=self.tokenizer,
            tasks_path=self.tasks_path,
            plan=SplitPlan(counts=counts or {"search": 12}),
            prompt=prompt,
        )

    def scorer(self, items: Items, **options: Any) -> Scorer:
        return Scorer(items, **options)

    def oracle(self, items: Items, *names: str, batch_size: int = 1, **options: Any) -> Any:
        """What stock lm-eval says of the very same documents."""
        samples = {}
        for name in names:
            for leaf in items.leaves(name, "search"):
                samples[leaf.name] = [leaf.task.eval_docs["n"].index(doc["n"]) for doc in leaf.docs]
        return simple_evaluate(
            model=HFLM(pretrained=self.module, tokenizer=self.tokenizer, batch_size=batch_size),
            tasks=list(names),
            task_manager=TaskManager(include_path=self.tasks_path, include_defaults=False),
            samples=samples,
            bootstrap_iters=2,
            **options,
        )


@pytest.fixture(scope="session")
def subject(
    llama_family: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Subject]:
    """Builds a subject of an architecture, once."""
    tokenizer_folder = llama_family.base
    built: dict[str, Subject] = {}

    def build(architecture: str) -> Subject:
        if architecture not in built:
            tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
            module = tiny_module(architecture)
            folder = tmp_path_factory.mktemp(architecture)
            write_tasks(folder, module, tokenizer)
            built[architecture] = Subject(module, tokenizer, str(folder))
        return built[architecture]

    return build


@pytest.fixture
def llama(subject: Callable[[str], Subject]) -> Subject:
    return subject("llama")


def tiny_module(architecture: str, *, seed: int = 0) -> PreTrainedModel:
    """Random weights, large enough that what is read decides what is said."""
    if architecture == "llama":
        module = LlamaForCausalLM(LlamaConfig(**_SIZES, num_key_value_heads=2))
    elif architecture == "qwen2":
        module = Qwen2ForCausalLM(
            Qwen2Config(**_SIZES, num_key_value_heads=2, tie_word_embeddings=True)
        )
    elif architecture == "gpt_neox":
        module = GPTNeoXForCausalLM(GPTNeoXConfig(**_SIZES))
    else:
        module = Gemma2ForCausalLM(
            Gemma2Config(
                **_SIZES,
                num_key_value_heads=2,
                head_dim=8,
                query_pre_attn_scalar=8,
                final_logit_softcapping=5.0,
                attn_logit_softcapping=5.0,
                sliding_window=64,
            )
        )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.add_(0.1 * noise)
            else:
                parameter.copy_((1.0 if "embed" in name else 0.5) * noise)
        # Bytes that are no text of their own score 0, so that what is written can be read again.
        module.get_output_embeddings().weight[_unreadable()] = 0
    module.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    return module.eval()


def _unreadable() -> list[int]:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    readable = {"Ġ", "Ċ", *(chr(code) for code in range(33, 127))}
    return [0, 1, *(3 + i for i, sign in enumerate(alphabet) if sign not in readable)]


def write_tasks(
    folder: Path, module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int = 40
) -> None:
    """Documents, a third of whose gold answers are what the model itself writes."""
    rng = Random(7)
    data: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for number in range(count + 20):
        words = rng.sample(WORDS, rng.randint(2, 8))
        question = " ".join(words)
        answer = words[0]
        if number % 3 == 0:
            written = greedy_text(module, tokenizer, f"Question: {question}\nAnswer:", 24)
            answer = written.split("\n")[0].split("ab")[0].split("}")[0]
        data["test" if number < count else "train"].append(
            {
                "n": number,
                "question": question,
                "choices": rng.sample(WORDS, 4),
                "label": rng.randrange(4),
                "answer": answer or "none",
                "long": " ".join(rng.choices(WORDS, k=rng.randint(5, 90))),
            }
        )
    (folder / "docs.json").write_text(json.dumps(data))
    (folder / "docs.py").write_text(DOCS)
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text(text)


def greedy_text(
    module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, limit: int
) -> str:
    tokens = tokenizer(prompt, return_tensors="pt")
    made = module.generate(**tokens, max_new_tokens=limit, do_sample=False)
    return str(tokenizer.decode(made[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True))
