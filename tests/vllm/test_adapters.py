"""Candidates of a LoRA family as adapters of one vLLM: in a batch, alone, as weights, and as PEFT does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import openai
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from evomerge.candidate import Merge
from evomerge.candidate import save as save_recipe
from evomerge.candidate.trial import Entry, Job, Jobs, Outcome
from evomerge.merge.adapter_output import save_adapter
from evomerge.workers.evaluator import Evaluator
from tests.vllm.adapter_family import RANK, save_adapters
from tests.vllm.served_family import Served
from tests.vllm.test_serve import free_port, running

pytestmark = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning:peft"),
]
TIE = 1e-3
"""Logits that differ by less are equal, for whom adds in another order."""
METRICS = {"words": ("alike",)}
BOTH = {**METRICS, "letters": ("acc", "gold_loglikelihood")}
WEIGHTS = [
    (0.9, 0.3, 0.1),
    (0.0, 1.0, 0.5),
    (0.0, 0.0, 0.0),
    (-0.4, 0.8, 1.2),
    (1, 0, 0),
    (2, 1, -1),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return save_adapters(tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def evaluator(served: Served) -> Evaluator:
    return Evaluator(served.setup("words", "letters", backend_arguments={"max_loras": 6}))


def jobs(candidates: list[Merge], metrics: dict[str, tuple[str, ...]] = METRICS) -> list[Job]:
    return [
        Job(Entry(f"trial {n}", candidate, n), "search", metrics, answers=True)
        for n, candidate in enumerate(candidates)
    ]


@pytest.fixture(scope="module")
def candidates(served: Served) -> list[Merge]:
    return [served.merge(*weights) for weights in WEIGHTS]


def answers(outcome: Outcome) -> tuple[str, ...]:
    assert outcome.failure is None, outcome.failure.trace
    return outcome.scores["words"].answers


def test_many_in_one_batch_answer_as_one_at_a_time_and_as_written_weights(
    evaluator: Evaluator, candidates: list[Merge], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = jobs(candidates)
    live = evaluator._scoring._model  # type: ignore[union-attr]
    before = live.held.version
    batch = evaluator.together(Jobs(tuple(asked))).each
    alone = [evaluator.evaluate(job) for job in asked]
    assert live.held.version == before  # nothing was merged
    monkeypatch.setattr(evaluator._scoring, "_adapters", None)
    written = [evaluator.evaluate(job) for job in asked]
    assert live.held.version == before + len(asked)
    texts = [answers(outcome) for outcome in batch]
    assert len(set(texts)) == len(texts)
    assert texts == [answers(outcome) for outcome in alone] == [answers(one) for one in written]
    assert [one.scores for one in batch] == [one.scores for one in written]
    spent = [outcome.cost for outcome in batch]
    assert [one.items for one in spent] == [12] * 6
    assert [one.generated_tokens for one in spent] == [one.cost.generated_tokens for one in written]
    assert all(a.began < b.began for a, b in pairwise(spent))


def test_the_batch_answers_as_peft_does_with_each_adapter(
    evaluator: Evaluator, candidates: list[Merge], served: Served, tmp_path: Path
) -> None:
    """Each token that vLLM writes is PEFT's most likely one, of the adapter of `evomerge merge --as-lora`."""
    written = evaluator._scoring.texts(jobs(candidates))
    base = AutoModelForCausalLM.from_pretrained(served.models[0], dtype=torch.float32)
    count = 0
    for place, candidate in enumerate(candidates):
        if any(WEIGHTS[place]):  # of the base --as-lora makes no adapter
            save_adapter(candidate, tmp_path / str(place), rank=RANK)
            model = PeftModel.from_pretrained(base, tmp_path / str(place)).eval()
            for (prompt, *_), tokens in written[place].items():
                check_greedy(model, prompt, tokens)
                count += len(tokens)
            base = model.unload()
    assert count > 500


def check_greedy(model: PeftModel, prompt: Sequence[int], tokens: Sequence[int]) -> None:
    """Check that each token is the most likely one there, or as likely as that."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
    own = logits.gather(1, torch.tensor(tokens)[:, None])[:, 0]
    assert (logits.amax(1) - own).max() < TIE


def test_what_is_read_besides_is_read_of_the_merged_weights(
    evaluator: Evaluator, candidates: list[Merge], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = jobs(candidates[:3], BOTH)
    batch = evaluator.together(Jobs(tuple(asked))).each
    monkeypatch.setattr(evaluator._scoring, "_adapters", None)
    assert [one.scores for one in batch] == [evaluator.evaluate(job).scores for job in asked]
    assert len({one.scores["letters"].metrics["gold_loglikelihood"] for one in batch}) == 3


def test_what_is_no_adapter_goes_by_its_weights_within_a_batch(
    evaluator: Evaluator, candidates: list[Merge], served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    ties = served.merge(0.9, 0.3, 0.8, method="ties", fixed={"density": 0.3})
    asked = jobs([candidates[0], ties, candidates[1]])
    assert evaluator._scoring.texts(asked).keys() == {0, 2}
    batch = evaluator.together(Jobs(tuple(asked))).each
    again = evaluator.together(Jobs(tuple(asked[::2]))).each  # the base is held again
    assert [one.scores for one in batch[::2]] == [one.scores for one in again]
    monkeypatch.setattr(evaluator._scoring, "_adapters", None)
    assert [one.scores for one in batch] == [evaluator.evaluate(job).scores for job in asked]


def test_a_call_that_fails_is_each_candidates_own_failure(
    evaluator: Evaluator, candidates: list[Merge], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("no room")

    engine = evaluator._scoring._scorer.engine(evaluator._scoring._model.module)
    monkeypatch.setattr(engine.vllm, "generate", refuse)
    outcomes = evaluator.together(Jobs(tuple(jobs(candidates[:2])))).each
    assert [str(one.failure.reason) for one in outcomes if one.failure] == [
        "RuntimeError: no room"
    ] * 2


def test_a_saved_adapter_is_served_and_answers_as_peft_does(
    served: Served, candidates: list[Merge], tmp_path: Path
) -> None:
    """What `evomerge merge --as-lora` writes, behind `vllm serve`."""
    save_recipe(candidates[0].recipe(), tmp_path / "best.yaml")
    best, base = tmp_path / "best", served.models[0]
    command = ["merge", tmp_path / "best.yaml", best, "--as-lora", RANK]
    subprocess.run([sys.executable, "-m", "evomerge", *map(str, command)], check=True)
    port = free_port()
    line = (
        f"vllm serve {base} --enable-lora --lora-modules best={best} --max-lora-rank 16 --port {port} "
        "--dtype float32 --enforce-eager"
    )
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), best).eval()
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
    with running(line, tmp_path, port, tmp_path / "log"):
        for prompt in ([5 + n, 60, 80 + 3 * n] for n in range(8)):
            said = client.completions.create(
                model="best",
                prompt=prompt,
                max_tokens=24,
                temperature=0,
                extra_body={"return_token_ids": True},
            )
            check_greedy(model, prompt, said.choices[0].model_extra["token_ids"])
