"""Documents of the zoo's tasks, drawn from the zoo's generators."""

from __future__ import annotations

from typing import Any

from datasets import Dataset, DatasetDict, Features, List, Value

from evomerge.zoo import items

TRAIN, TEST = 100, 1000
# Declared, or dates among the answers would be read as dates.
FEATURES = Features(
    {
        "prompt": Value("string"),
        "answer": Value("string"),
        "choices": List(Value("string")),
        "gold": Value("int64"),
    }
)


def load(job: str, **_: Any) -> DatasetDict:
    """Build a job's documents.

    Args:
        job: One of the zoo's jobs.
        **_: What lm-eval passes besides: the task's metadata.

    Returns:
        Splits `train`, for few-shot examples, and `test`.
    """
    return DatasetDict({"train": _split(job, "train", TRAIN), "test": _split(job, "test", TEST)})


def _split(job: str, split: Any, count: int) -> Dataset:
    rows = [
        {"prompt": i.prompt, "answer": i.answer, "choices": list(i.choices), "gold": i.gold}
        for i in items(job, split, count)
    ]
    return Dataset.from_list(rows, features=FEATURES)
