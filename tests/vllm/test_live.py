"""`scorer: {backend: vllm}` with a real vLLM: its texts are the saved candidate's, and our own passes'."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

import evomerge
from evomerge.candidate import Merge, Vocabulary
from evomerge.candidate.trial import Entry, Job, Outcome
from evomerge.inference.generation import Prompt
from evomerge.scoring.live_vllm import LiveEngine
from evomerge.store import Store
from evomerge.workers.evaluator import Evaluator
from tests.vllm.served_family import COUNTS, Served, save_served

pytestmark = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm"),
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]
ROOT = Path(__file__).parents[2]
METRICS = {"words": ("alike",), "letters": ("acc",)}
LIMIT = 24
TIE = 1e-3
"""Logits that differ by less are equal, for whom adds in another order."""
WEIGHTS = [(0.9, 0.0, 0.0, 0.0), (0.3, 0.3, 0.3, 0.3), (0.0, 0.7, 0.2, 0.0), (0.1, 0.0, 0.9, 0.4)]
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return save_served(tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def evaluator(served: Served) -> Evaluator:
    """vLLM writes."""
    return Evaluator(served.setup("words", "letters"))


@pytest.fixture(scope="module")
def resident(served: Served) -> Evaluator:
    return Evaluator(served.setup("words", "letters", backend=None))


@pytest.fixture(scope="module")
def candidates(served: Served) -> list[Merge]:
    """Five that differ, of three methods."""
    drawn = served.merge(1.2, 0.4, 0.0, 0.8, method="dare_linear", fixed={"density": 0.5}, seed=3)
    ties = served.merge(1.0, 1.0, 0.5, 0.2, method="ties", fixed={"density": 0.3})
    return [*(served.merge(*weights) for weights in WEIGHTS[:3]), ties, drawn]


def evaluate(evaluator: Evaluator, candidate: Merge, **job: Any) -> Outcome:
    outcome = evaluator.evaluate(Job(Entry("trial 0", candidate, 0), "search", METRICS, **job))
    assert outcome.failure is None, outcome.failure
    return outcome


def engine(evaluator: Evaluator, candidate: Merge) -> LiveEngine:
    """What the worker's passes run on, with a candidate's weights."""
    scoring = evaluator._scoring
    module = scoring._builder(candidate).build(candidate)
    return scoring._scorer.engine(module)


def prompts(engine: LiveEngine) -> list[Prompt]:
    """Of many lengths; nothing but an end token ends them."""
    texts = [
        f"{word} {number} " * (1 + number % 3) for word in ("to be", "x?") for number in range(9)
    ]
    rule = engine.encoder.stopping.rule(())
    return [Prompt(tokens, rule, LIMIT, False) for tokens in engine.encoder.prompts(texts)]


def write(evaluator: Evaluator, candidate: Merge) -> list[list[int]]:
    own = engine(evaluator, candidate)
    with torch.inference_mode():
        return own.write(prompts(own))


def test_each_candidate_writes_and_scores_as_if_it_was_saved_and_loaded(
    evaluator: Evaluator, candidates: Sequence[Merge], served: Served, tmp_path: Path
) -> None:
    """Token for token, in float32; the last is the first again, after the others."""
    found = [
        (write(evaluator, one), evaluate(evaluator, one)) for one in (*candidates, candidates[0])
    ]
    assert found[0][0] == found[-1][0]
    assert found[0][1].scores == found[-1][1].scores
    assert len({str(written) for written, _ in found}) == len(candidates)
    assert len({outcome.scores["words"].metrics["alike"] for _, outcome in found}) > 2

    asked = tmp_path / "asked.json"
    own = engine(evaluator, candidates[0])
    ends = list(own.encoder.stopping.end_tokens)
    asked.write_text(json.dumps([[one.tokens for one in prompts(own)], LIMIT, ends]))
    for number, (candidate, (written, outcome)) in enumerate(zip(candidates, found, strict=False)):
        folder, out = tmp_path / f"saved {number}", tmp_path / f"{number}.json"
        evomerge.merge(candidate.recipe(), folder)
        run("tests.vllm.loaded", folder, served.tasks, asked, out)
        loaded, scores = json.loads(out.read_text())
        assert written == loaded
        assert outcome.scores["words"].metrics["alike"] == tuple(scores["metrics"]["alike"])


def test_what_vllm_writes_is_what_our_own_passes_write(
    evaluator: Evaluator, resident: Evaluator, candidates: Sequence[Merge]
) -> None:
    """Where they part, two tokens are equally likely."""
    parted = 0
    for candidate in candidates:
        found, expected = write(evaluator, candidate), write(resident, candidate)
        own = engine(resident, candidate)
        for prompt, one, other in zip(prompts(own), found, expected, strict=True):
            if one == other:
                continue
            parted += 1
            at = next(n for n in range(LIMIT) if one[n : n + 1] != other[n : n + 1])
            tokens = torch.tensor([[*prompt.tokens, *other[:at]]])
            logits = own._forward.module(tokens).logits[0, -1]
            assert abs(float(logits[one[at]] - logits[other[at]])) < TIE
    print(f"{parted} of {len(candidates) * len(found)} texts part at a tie")
    assert parted <= len(candidates)


def test_choices_are_read_and_texts_are_written(
    evaluator: Evaluator, resident: Evaluator, candidates: Sequence[Merge]
) -> None:
    for candidate in candidates[:3]:
        found, expected = (evaluate(one, candidate, answers=True) for one in (evaluator, resident))
        assert found.scores["letters"] == expected.scores["letters"]
        assert found.scores["words"] == expected.scores["words"]
        assert found.cost.generated_tokens == expected.cost.generated_tokens > 0


def test_random_task_vectors_are_written_too(
    evaluator: Evaluator, resident: Evaluator, candidates: Sequence[Merge]
) -> None:
    real, noise = (evaluate(evaluator, candidates[1], noise=seed) for seed in (None, 7))
    assert noise.scores != real.scores
    assert noise.scores == evaluate(resident, candidates[1], noise=7).scores


def untie(model: str) -> None:
    """Give a saved model with a tied head one of its own."""
    folder = Path(model)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].flip(1)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "case", ["tied heads", "one head of its own", "more tokens", "two processes"]
)
def test_other_families_are_written_whole(tmp_path: Path, case: str) -> None:
    """Candidate after candidate, as our own passes write them."""
    vocabulary = Vocabulary("union", pad_to_multiple_of=80) if case == "more tokens" else None
    arguments = {"tensor_parallel_size": 2} if case == "two processes" else {}
    tied = case in ("tied heads", "one head of its own")
    served = save_served(tmp_path / "family", tie_word_embeddings=tied)
    if case == "one head of its own":
        untie(served.models[-1])
    options = {"vocabulary": vocabulary, "backend_arguments": arguments}
    evaluator = Evaluator(served.setup("words", **options))
    resident = Evaluator(served.setup("words", vocabulary=vocabulary, backend=None))
    for weights in (*WEIGHTS[:3], WEIGHTS[0]):
        candidate = served.merge(*weights, vocabulary=vocabulary)
        assert write(evaluator, candidate) == write(resident, candidate)


CAMPAIGN = """\
name: live
models:
  base: {base}
  experts: [{experts}]
  dtype: float32
space:
  method: task_arithmetic
  parameters:
    weight: {{low: 0.0, high: 1.2}}
objectives:
  - {{task: words, metric: alike}}
  - {{task: letters, metric: acc}}
tasks_path: {tasks}
items: {{search: {search}, select: {select}, holdout: {holdout}}}
search: {{sampler: cmaes, trials: 12, finalists: 2, seed: 1}}
scorer: {{backend: vllm, args: {args}}}
workers: {{count: auto, cpus: {cores}}}
out: {out}
"""


def campaign(served: Served, folder: Path, args: str = "{}") -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "campaign.yaml"
    base, *experts = served.models
    text = CAMPAIGN.format(
        base=base,
        experts=", ".join(experts),
        tasks=served.tasks,
        args=args,
        cores=len(os.sched_getaffinity(0)),  # one Ray worker
        out=folder / "out",
        **COUNTS,
    )
    file.write_text(text)
    return file


def run(module: str, *arguments: object) -> str:
    """Run a module in an interpreter of its own; return what it says."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(
        command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def points(out: Path) -> list[tuple[Any, ...]]:
    with Store.open(out, write=False) as store:
        return [(t.number, t.state, sorted(t.params.items()), t.values) for t in store.trials()]


def test_a_campaign_is_killed_and_resumed(served: Served, tmp_path: Path) -> None:
    file, out = campaign(served, tmp_path / "killed"), tmp_path / "killed" / "out"
    driver = subprocess.Popen(
        [sys.executable, "-m", "evomerge", "search", str(file), "--display", "none"],
        env=os.environ | ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    while driver.poll() is None and told(out) < 4:
        time.sleep(0.05)
    assert driver.poll() is None, driver.communicate()[1][-3000:]
    started = psutil.Process(driver.pid).children(recursive=True)
    workers = [one for one in started if one.name().startswith("ray::Worker")]
    assert workers
    os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert alive == []
    for one in started:  # Ray's own agents, who take a while to notice
        with suppress(psutil.NoSuchProcess):
            one.kill()
    before = points(out)
    done = [one for one in before if one[1] == "complete"]
    assert 4 <= len(done) < 12
    run("evomerge", "resume", out, "--display", "none")
    after = points(out)
    assert [number for number, *_ in after] == list(range(12))
    assert [one for one in after if one in done] == done
    assert {state for _, state, *_ in after} == {"complete"}
    run("evomerge", "search", campaign(served, tmp_path / "whole"), "--display", "none")
    assert points(tmp_path / "whole" / "out") == after
    kinds = [row["kind"] for row in json.loads((out / "leaderboard.json").read_text())["rows"]]
    assert "winner" in kinds


def told(out: Path) -> int:
    if not (out / "study.db").exists():
        return 0
    return sum(state == "complete" for _, state, *_ in points(out))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            "{gpu_memory_utilisation: 0.5}",
            "scorer.args.gpu_memory_utilisation: vLLM has no engine argument",
        ),
        ("{max_model_len: 30}", "scorer.args.max_model_len: found 30, expected "),
    ],
)
def test_wrong_arguments_are_told_in_one_line(
    served: Served, tmp_path: Path, args: str, said: str
) -> None:
    file = campaign(served, tmp_path, args)
    status, line = refused("search", file)
    assert status == 2
    assert said in line


def test_a_model_that_vllm_does_not_serve_is_told_in_one_line(tmp_path: Path) -> None:
    small = save_served(tmp_path / "small", head_dim=16)
    status, line = refused("search", campaign(small, tmp_path / "campaign"))
    assert status == 2
    assert "scorer.backend: vLLM does not start: " in line


def refused(*arguments: object) -> tuple[int, str]:
    command = [sys.executable, "-m", "evomerge", *map(str, arguments), "--display", "none"]
    done = subprocess.run(
        command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, cwd=ROOT
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("evomerge:")]
    assert "Traceback" not in done.stderr
    (line,) = lines or [done.stderr]
    return done.returncode, line
