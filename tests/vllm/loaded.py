"""A saved model, loaded by vLLM: what it writes, and its scores by lm-eval's own class for vLLM."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from evomerge.scoring.lm_eval_backend import LmEvalBackend
from evomerge.tasks import PromptStyle, SplitPlan, TaskRequest, load_items
from tests.vllm.program import version
from tests.vllm.served_family import COUNTS

ENGINE = {"dtype": "float32", "seed": 0, "enforce_eager": True, "max_model_len": 256}
KV_BYTES = 2**26


def main(folder: str, tasks: str, asked: str, out: str) -> None:
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}
    from transformers import AutoTokenizer
    from vllm import LLM, SamplingParams

    prompts, limit, ends = json.loads(Path(asked).read_text())
    llm = LLM(folder, **ENGINE, kv_cache_memory_bytes=KV_BYTES)
    parameters = SamplingParams(
        temperature=0, max_tokens=limit, ignore_eos=True, stop_token_ids=ends, detokenize=False
    )
    found = llm.generate([{"prompt_token_ids": one} for one in prompts], parameters, use_tqdm=False)
    written = [list(one.outputs[0].token_ids) for one in found]
    llm.llm_engine.engine_core.shutdown()
    del llm
    metadata.version = version  # which lm-eval asks, too
    items = load_items(
        (TaskRequest("words"), TaskRequest("letters")),  # which share their documents
        tokenizer=AutoTokenizer.from_pretrained(folder),
        tasks_path=tasks,
        plan=SplitPlan(COUNTS),
        prompt=PromptStyle(),
    )
    backend = LmEvalBackend(items, "vllm", {**ENGINE, "kv_cache_memory_bytes": KV_BYTES})
    scored = backend.score(Path(folder), "search", {"words": ("alike",)})
    Path(out).write_text(json.dumps([written, asdict(scored.tasks["words"])]))


if __name__ == "__main__":
    main(*sys.argv[1:])
