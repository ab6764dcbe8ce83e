"""What one environment makes of a model and of tasks: tokens, logits, and a digest of every request.

    python _probe.py MODEL TASKS_PATH LIMIT TASK...

It prints one JSON object. The same file runs in evomerge's environment and in a peer's, so it imports
nothing of evomerge.
"""

from __future__ import annotations

import hashlib
import json
import sys

import torch
from lm_eval.tasks import TaskManager, get_task_dict
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(model: str, tasks_path: str, limit: str, *tasks: str) -> None:
    """Print the tokens and last logits of the first task's first request, and a digest of all requests."""
    manager = TaskManager(include_path=tasks_path, include_defaults=False)
    loaded = get_task_dict(list(tasks), manager)
    digest, first = hashlib.sha256(), ""
    for name in tasks:
        loaded[name].build_all_requests(limit=int(limit), rank=0, world_size=1)
        for instance in loaded[name].instances:
            digest.update(repr((name, instance.args)).encode())
            first = first or instance.args[0]
    print(json.dumps({"requests": digest.hexdigest(), **logits(model, first)}))


def logits(model: str, text: str) -> dict[str, list[float]]:
    """Return the tokens of a text, and the model's logits after it, in float32."""
    tokens = AutoTokenizer.from_pretrained(model)(text)["input_ids"]
    module = AutoModelForCausalLM.from_pretrained(model).to(torch.float32).eval()
    with torch.no_grad():
        last = module(torch.tensor([tokens])).logits[0, -1]
    return {"tokens": tokens, "logits": last.tolist()}


if __name__ == "__main__":
    main(*sys.argv[1:])
