"""Documents and metric of a file of prompts that a teacher answered; copied beside its task file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet  # type: ignore[import-untyped]
from datasets import Dataset, DatasetDict


def documents(file: str, **_: Any) -> DatasetDict:  # noqa: ANN401 - whatever lm-eval passes besides
    """Return the prompts and the teacher's answers, all as texts, whichever split is asked for.

    Args:
        file: Name of the Parquet file beside this one.
        **_: The task's metadata.
    """
    found = Dataset(pyarrow.parquet.read_table(Path(__file__).parent / file))
    return DatasetDict(dict.fromkeys(("train", "validation", "test"), found))


def process_results(document: dict[str, str], results: list[str]) -> dict[str, float]:
    """Return whether a model's answer is the teacher's, white space around them apart."""
    return {"teacher_match": float(results[0].strip() == document["answer"].strip())}
