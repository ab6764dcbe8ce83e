"""Tasks of `benchmarks.speed.score`: each job's items as choices and as text, with and without shots."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

ZOO_TASKS = Path(__file__).parents[1] / "tasks" / "zoo"

SHOTS = """
task: {name}
include: {include}
dataset_kwargs: {{job: {job}}}
num_fewshot: {shots}
"""
FIXED = "fewshot_config: {sampler: first_n}\n"

LOADER = '''
import json
from pathlib import Path

from datasets import Dataset, DatasetDict, Features, List, Value

FEATURES = Features(
    {{
        "prompt": Value("string"),
        "answer": Value("string"),
        "choices": List(Value("string")),
        "gold": Value("int64"),
    }}
)


def load(job, **_):
    named = {{"train": "validation", "test": "test"}}
    return DatasetDict({{split: rows(f"{{job}}_{{name}}.jsonl") for split, name in named.items()}})


def rows(name):
    text = (Path({folder!r}) / name).read_text(encoding="utf-8")
    found = [json.loads(line) for line in text.splitlines()]
    return Dataset.from_list([item(found, place) for place in range(len(found))], features=FEATURES)


def item(found, place):
    """The wrong choices are the answers of the items that follow."""
    prompt, answer = found[place]["prompt"], found[place]["answer"]
    others = dict.fromkeys(each["answer"] for each in found[place + 1 :] + found[:place])
    choices = [other for other in others if other != answer][:3]
    choices.insert(place % 4, answer)
    return {{"prompt": prompt, "answer": answer, "choices": choices, "gold": place % 4}}
'''


def write_tasks(folder: Path, jobs: Sequence[str], rows: Path | None, end: str) -> None:
    """Write `bench_JOB_KIND`, where KIND is mc or gen, and 0 or 5 shots; `5_drawn` has other shots an item.

    Args:
        folder: Where to.
        jobs: Whose items.
        rows: Folder of JOB_validation.jsonl (shots) and JOB_test.jsonl with `prompt` and `answer`; None:
            the zoo's.
        end: What ends an answer.
    """
    if rows is None:
        shutil.copy(ZOO_TASKS / "docs.py", folder)
    else:
        (folder / "docs.py").write_text(LOADER.format(folder=str(rows.resolve())), encoding="utf-8")
    for name in ("_choose_yaml", "_generate_yaml"):
        text = (ZOO_TASKS / name).read_text(encoding="utf-8")
        (folder / name).write_text(text.replace("<|end|>", end), encoding="utf-8")
    for job in jobs:
        for kind, include in (("mc", "_choose_yaml"), ("gen", "_generate_yaml")):
            for suffix, shots, more in (("0", 0, ""), ("5", 5, FIXED), ("5_drawn", 5, "")):
                name = f"bench_{job}_{kind}{suffix}"
                text = SHOTS.format(name=name, include=include, job=job, shots=shots) + more
                (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
