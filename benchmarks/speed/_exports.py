"""The zoo in a form that mergekit-evolve's older libraries read, and tasks as files that both sides read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from evomerge import zoo

TASK = """
task: {name}
dataset_path: parquet
dataset_kwargs: {{data_files: {files}}}
training_split: train
fewshot_split: train
validation_split: validation
test_split: test
num_fewshot: {shots}
fewshot_config: {{sampler: first_n}}
fewshot_delimiter: "<|end|>"
target_delimiter: ""
doc_to_text: prompt
{output}
metadata: {{version: 1.0}}
"""
CHOICE = """
output_type: multiple_choice
doc_to_choice: choices
doc_to_target: gold
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
GENERATION = """
output_type: generate_until
doc_to_target: answer
generation_kwargs: {until: ["<|end|>"], max_gen_toks: 48, do_sample: false}
filter_list:
  - {name: none, filter: [{function: remove_whitespace}, {function: take_first}]}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
OUTPUTS = {"choice": CHOICE, "generation": GENERATION}


def export_models(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Copy models of the zoo so that transformers 4.51 reads them; return name → folder."""
    return {name: export_model(zoo.resolve(f"zoo:{name}"), folder / name) for name in names}


def export_model(source: Path, target: Path) -> Path:
    """Copy a model folder of transformers 5 so that transformers 4.51 reads it.

    Args:
        source: The folder.
        target: A new folder.

    Returns:
        `target`.
    """
    shutil.copytree(source, target)
    _rewrite(target / "config.json", older_config)
    _rewrite(target / "tokenizer_config.json", older_tokenizer_config)
    return target


def older_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rename what transformers 5 renamed: `dtype`, `rope_parameters`."""
    older = dict(config)
    rope = dict(older.pop("rope_parameters", {}))
    older["rope_theta"] = rope.pop("rope_theta", 10000.0)
    if rope.get("rope_type", "default") != "default":
        older["rope_scaling"] = rope
    older["torch_dtype"] = older.pop("dtype", older.get("torch_dtype"))
    return older


def older_tokenizer_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Name the class that older releases know, and extra special tokens as they expect them."""
    older = {**config, "tokenizer_class": "PreTrainedTokenizerFast"}
    if isinstance(older.get("extra_special_tokens"), list):
        older["additional_special_tokens"] = older.pop("extra_special_tokens")
    return older


def write_tasks(
    folder: Path, kind: str, jobs: Iterable[str], counts: Mapping[str, int], shots: int = 0
) -> list[str]:
    """Write lm-eval tasks over local files of the zoo's items.

    Args:
        folder: Gets a YAML and three parquet files a task.
        kind: `choice` (of four answers) or `generation`.
        jobs: The zoo's jobs, a task each.
        counts: Split (`train`, `validation`, `test`) → items; validation and test are disjoint.
        shots: Examples in each prompt, the first of `train`.

    Returns:
        The tasks' names.
    """
    names = []
    for job in jobs:
        held_back = zoo.items(job, "test", counts["test"] + counts["validation"])
        splits = {
            "train": zoo.items(job, "train", counts["train"]),
            "validation": held_back[counts["test"] :],
            "test": held_back[: counts["test"]],
        }
        files = {split: str(folder / f"{job}_{split}.parquet") for split in splits}
        for split, items in splits.items():
            pyarrow.parquet.write_table(_table(items), files[split])
        name = f"peer_{job}_{kind}_{shots}"
        text = TASK.format(
            name=name, files=json.dumps(files), shots=shots, output=OUTPUTS[kind].strip()
        )
        (folder / f"{name}.yaml").write_text(text.lstrip(), encoding="utf-8")
        names.append(name)
    return names


def _table(items: Iterable[zoo.Item]) -> pyarrow.Table:
    """Make a table without the data set library's own schema, which differs between its releases."""
    return pyarrow.Table.from_pylist(
        [
            {"prompt": i.prompt, "answer": i.answer, "choices": list(i.choices), "gold": i.gold}
            for i in items
        ]
    )


def _rewrite(path: Path, change: Any) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change(config), indent=2) + "\n", encoding="utf-8")
