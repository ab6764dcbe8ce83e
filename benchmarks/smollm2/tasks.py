"""The items as ordinary lm-eval tasks: a YAML file and two data files a job."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from items import Item, Render

PREFIX = "smollm2_"

# Read by lm-eval beside the YAML files. The data stay JSON lines: no path depends on the working
# directory, and declared string features keep `datasets` from turning dates into datetimes.
LOADER = '''\
"""Data of the tasks beside this file."""

import json
from pathlib import Path

from datasets import Dataset, DatasetDict, Features, Value

TEXT = Features({name: Value("string") for name in ("id", "prompt", "answer")})


def load(job, **_):
    """The `validation` and `test` rows of a job."""
    return DatasetDict({split: _rows(f"{job}_{split}.jsonl") for split in ("validation", "test")})


def _rows(name):
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return Dataset.from_list([json.loads(line) for line in text.splitlines()], features=TEXT)
'''

TASK = """\
task: {prefix}{job}
custom_dataset: !function smollm2_data.load
dataset_kwargs:
  job: {job}
output_type: generate_until
validation_split: validation   # held back from the experts' training: for search and select
test_split: test               # for holdout
doc_to_text: prompt            # chat text, rendered: use no --apply_chat_template
doc_to_target: answer
target_delimiter: ""
num_fewshot: 0
generation_kwargs:
  until: [{end}]
  max_gen_toks: {tokens}
  do_sample: false
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""


def write(
    folder: Path,
    splits: Mapping[str, Mapping[str, Sequence[Item]]],
    *,
    render: Render,
    end: str,
    max_tokens: int = 64,
) -> None:
    """Write tasks `smollm2_<job>` (generative, exact match) that stock lm-eval runs.

    Args:
        folder: Where the files go; created when absent.
        splits: Job → {"validation": items, "test": items}.
        render: Messages → prompt text, with all chat markup.
        end: The token that ends an answer.
        max_tokens: Longest answer generated, in tokens.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "smollm2_data.py").write_text(LOADER, encoding="utf-8")
    for job, of_job in splits.items():
        for split in ("validation", "test"):
            rows = [
                {"id": item.id, "prompt": render(item.messages), "answer": item.answer}
                for item in of_job[split]
            ]
            lines = "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows)
            (folder / f"{job}_{split}.jsonl").write_text(lines, encoding="utf-8")
        text = TASK.format(prefix=PREFIX, job=job, end=json.dumps(end), tokens=max_tokens)
        (folder / f"{PREFIX}{job}.yaml").write_text(text, encoding="utf-8")
