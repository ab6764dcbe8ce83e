"""Candidates of a LoRA family in a live vLLM: adapters in one batch against weights written in turn.

    python -m benchmarks.speed.vllm_adapters [--layers 30] [--width 576] [--candidates 6] [--rounds 3]

A random Llama (by default of SmolLM2-135M's shape, with the zoo's vocabulary) and three random adapters
answer a task of the zoo. All in one process with one thread, in turns; processor seconds a candidate, the
median of the rounds, which differ in their weights. It needs the environment of `make test-vllm`.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from evomerge import zoo
from evomerge.candidate import Merge
from evomerge.candidate.trial import Entry, Job, Jobs, Outcome
from evomerge.merge.tokenizer import load_tokenizer
from evomerge.tasks import PromptStyle, SplitPlan, TaskRequest
from evomerge.workers import WorkerSetup
from evomerge.workers.evaluator import Evaluator

TASK, METRIC = "zoo_tools", "exact_match"
TASKS = Path(__file__).parents[1] / "tasks"
EXPERTS, RANK = 3, 8
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
HEAD = 64


def main() -> None:
    """Print processor seconds a candidate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, number in (("layers", 30), ("width", 576), ("candidates", 6), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--items", type=int, default=16)
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        models = family(Path(folder), chosen.layers, chosen.width)
        measure(models, chosen.candidates, chosen.rounds, chosen.items)


def family(folder: Path, layers: int, width: int) -> tuple[str, ...]:
    """Save a base, and adapters on it; return how campaigns name them."""
    tokenizer = load_tokenizer(str(zoo.resolve("zoo:base")))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD,
        num_key_value_heads=max(1, width // HEAD // 3),
        max_position_embeddings=1024,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    model: Any = LlamaForCausalLM(config)
    base = folder / "base"
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    print(f"{sum(each.numel() for each in model.parameters()) / 1e6:.0f} M parameters")
    for number in range(EXPERTS):
        settings = LoraConfig(task_type="CAUSAL_LM", r=RANK, target_modules=LAYERS)
        adapted = get_peft_model(model, settings)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        adapted.save_pretrained(folder / f"expert{number}")
        model = adapted.unload()
    return (str(base), *(f"{base}+{folder / f'expert{number}'}" for number in range(EXPERTS)))


def measure(models: tuple[str, ...], candidates: int, rounds: int, items: int) -> None:
    """Measure each way of it, in turns."""
    setup = WorkerSetup(
        models=models,
        dtype="float32",
        requests=(TaskRequest(TASK),),
        tasks_path=str(TASKS),
        plan=SplitPlan({"search": items}),
        prompt=PromptStyle(),
        threads=1,
        backend="vllm",
        backend_arguments={"max_loras": candidates},
    )
    evaluator = Evaluator(setup)
    resident: Any = evaluator._scoring
    adapters = resident._adapters

    def one_by_one(jobs: tuple[Job, ...]) -> list[Outcome]:
        return [evaluator.evaluate(job) for job in jobs]

    def as_weights(jobs: tuple[Job, ...]) -> list[Outcome]:
        resident._adapters = None
        try:
            return one_by_one(jobs)
        finally:
            resident._adapters = adapters

    ways: dict[str, Callable[[tuple[Job, ...]], list[Outcome]]] = {
        "weights, written in turn": as_weights,
        "adapters, one at a time": one_by_one,
        "adapters, one batch": lambda jobs: list(evaluator.together(Jobs(jobs)).each),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds + 1):  # the first warms up
        jobs = tuple(job(models, torch.rand(EXPERTS).tolist()) for _ in range(candidates))
        for way, run in ways.items():
            began = time.process_time()
            outcomes = run(jobs)
            seconds[way].append(time.process_time() - began)
            assert all(outcome.failure is None for outcome in outcomes), outcomes
    tokens = sum(outcome.cost.generated_tokens for outcome in outcomes) / candidates
    print(f"{candidates} candidates, {items} items, {tokens:.0f} tokens a candidate")
    for way, found in seconds.items():
        print(f"{way}: {statistics.median(found[1:]) / candidates:.2f} s a candidate")


def job(models: tuple[str, ...], weights: list[float]) -> Job:
    """Return a candidate of task arithmetic."""
    own = {"weight": ((tuple(weights),),)}
    merge = Merge("task_arithmetic", models[1:], models[0], own=own, dtype="float32")
    return Job(Entry("trial", merge, 0), "search", {TASK: (METRIC,)})


if __name__ == "__main__":
    main()
