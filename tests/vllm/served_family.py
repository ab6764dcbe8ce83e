"""A family that vLLM serves (heads of 64), with a task that is answered by texts and one of choices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from evomerge.candidate import Merge
from evomerge.tasks import PromptStyle, SplitPlan, TaskRequest
from evomerge.workers import WorkerSetup
from tests.conftest import byte_tokenizer, save_family

COUNTS = {"search": 12, "select": 6, "holdout": 6}
WRITES = """
task: words
custom_dataset: !function docs.load
output_type: generate_until
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
process_results: !function docs.alike
generation_kwargs: {do_sample: false, until: ["\\n", "e ", "qu"], max_gen_toks: 20}
metric_list:
  - {metric: alike, aggregation: mean, higher_is_better: true}
"""
CHOOSES = """
task: letters
custom_dataset: !function docs.load
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_choice: [" a", " b"]
doc_to_target: label
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
DOCS = """

import datasets

WORDS = "alpha beta gamma delta".split()


def load(**_):
    docs = [
        {
            "question": f"{WORDS[n % 4]} and {n} are the words that follow, " * (1 + n % 3),
            "answer": f"{WORDS[n % 3]} {n}",
            "label": n % 2,
        }
        for n in range(24)
    ]
    return {"test": datasets.Dataset.from_list(docs)}


def alike(doc, results):
    return {"alike": sum(c.isascii() and c.isalnum() for c in results[0]) / 20}
"""


@dataclass(frozen=True)
class Served:
    """Where everything is."""

    models: tuple[str, ...]  # the base first
    tasks: Path

    def merge(self, *weights: float, method: str = "task_arithmetic", **options: Any) -> Merge:
        base, *experts = self.models
        own = {"weight": ((weights,),)}
        return Merge(method, tuple(experts), base, own=own, dtype="float32", **options)

    def setup(self, *tasks: str, **settings: Any) -> WorkerSetup:
        options: dict[str, Any] = {"dtype": "float32", "threads": 1, "backend": "vllm"}
        return WorkerSetup(
            models=self.models,
            requests=tuple(map(TaskRequest, tasks)),
            tasks_path=str(self.tasks),
            plan=SplitPlan(COUNTS),
            prompt=PromptStyle(),
            **options | settings,
        )


def save_served(folder: Path, **options: Any) -> Served:
    """Save a base and four experts, and the tasks."""
    config = LlamaConfig(
        vocab_size=259,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        dtype="float32",
        **options,
    )
    family = save_family(folder, LlamaForCausalLM, config, experts=4)
    for model in family.models:
        _write_ascii_only(Path(model) / "model.safetensors")
    tasks = folder / "tasks"
    tasks.mkdir()
    (tasks / "words.yaml").write_text(WRITES)
    (tasks / "letters.yaml").write_text(CHOOSES)
    (tasks / "docs.py").write_text(DOCS)
    return Served(family.models, tasks)


def _write_ascii_only(file: Path) -> None:
    """Let a model prefer ASCII: half a character is decoded otherwise in a stream than in one go."""
    tensors, tokenizer = load_file(file), byte_tokenizer()
    head = tensors.get("lm_head.weight")
    if head is not None:
        texts = tokenizer.batch_decode([[token] for token in range(len(head))])
        head[[not text.isascii() for text in texts]] = 0.0
        head[:2] = 0.0  # special tokens, which lm-eval's class for vLLM leaves in the text
        save_file(tensors, file, {"format": "pt"})
