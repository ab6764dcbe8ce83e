"""Targets of a teacher and the loss that they make, against plain forward passes of transformers."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn.functional import kl_div

from evomerge.candidate.trial import Target
from evomerge.errors import TaskError
from evomerge.inference import NotFinite, divergence
from evomerge.inference.encoding import Encoder
from evomerge.scoring import open_backend
from evomerge.scoring.item_loss import TEMPERATURE
from evomerge.tasks import PromptStyle
from tests.scoring_family import tiny_module

TASKS = ("choice_shots", "written", "said", "rolling", "several")
SHARES = {"choice_shots": 0.4, "written": 0.3, "said": 0.1, "rolling": 0.1, "several": 0.1}
ITEMS = range(12)


@pytest.fixture(params=["llama", "qwen2", "gpt_neox"])
def some(request, subject):
    return subject(request.param)


@pytest.fixture
def student(some):
    """Another module than the one that wrote some of the gold answers."""
    name = {"llama": "llama", "qwen2": "qwen2", "gpt_neox": "gpt_neox"}[
        some.module.config.model_type
    ]
    return tiny_module(name, seed=1).double().requires_grad_(True)


def plain(module, reading):
    """The log-probabilities at the scored positions of a reading, read alone."""
    logits = module(torch.tensor([reading.tokens])).logits[0]
    return logits[-reading.reads :].log_softmax(-1)


def questions(scorer, module, task):
    return scorer.loss._questions_of(scorer.engine(module).encoder, task, "search")


def gold(logprobs, reading):
    value = logprobs[range(len(reading.targets)), reading.targets].sum()
    return value + logprobs[-1, list(reading.ends)].logsumexp(0) if reading.ends else value


def reference(module, question, target, gold_share, temperature=TEMPERATURE):
    """The loss of an item, from its definition."""
    said = [plain(module, each) for each in question.readings]
    sums = torch.stack(
        [gold(logprobs, each) for logprobs, each in zip(said, question.readings, strict=True)]
    )
    if question.right:
        labelled = -sums.log_softmax(0)[list(question.right)].logsumexp(0)
        log_q = sums.log_softmax(0)[None]
    else:
        labelled = -question.scale * sums.sum()
        log_q = torch.cat(said)
    if target is None:
        return labelled
    log_p = torch.from_numpy(target.logprobs).double()
    if target.tokens is not None:
        tokens = torch.from_numpy(target.tokens).long()
        log_p = torch.cat([log_p, torch.from_numpy(target.rest).double()[:, None]], 1)
        rest = 1 - log_q.gather(1, tokens).exp().sum(1, keepdim=True)
        log_q = torch.cat([log_q.gather(1, tokens), rest.log()], 1)
    log_p = log_p.log_softmax(1)
    scale = 1.0 if question.right else temperature**2 * question.scale
    if not question.right:
        log_p, log_q = ((each / temperature).log_softmax(1) for each in (log_p, log_q))
    taught = scale * kl_div(log_q, log_p, log_target=True, reduction="sum")
    return gold_share * labelled + (1 - gold_share) * taught


@pytest.mark.parametrize("likeliest", [None, 20])
def test_targets_are_what_a_plain_pass_says(some, likeliest, monkeypatch):
    if likeliest is not None:
        fewer = partial(divergence.told, whole=0, likeliest=likeliest)
        monkeypatch.setattr(divergence, "told", fewer)
    scorer = some.scorer(some.items(*TASKS))
    for task in TASKS:
        found = scorer.loss.targets(some.module, task)
        every = scorer.loss.targets(some.module, task, mistaken=True)
        asked = questions(scorer, some.module, task)
        right = []
        for question, target in zip(asked, every, strict=True):
            with torch.no_grad():
                said = [plain(some.module, each) for each in question.readings]
            if question.right:
                sums = torch.stack(list(map(gold, said, question.readings)))
                expected = sums.log_softmax(0)[None]
                assert target.tokens is None
                right.append(question.right[int(sums.argmax())])
            else:
                expected = torch.cat(said)
                right.append(task == "rolling" or all(map(writes, said, question.readings)))
            if target.tokens is not None:
                assert target.tokens.shape == (len(expected), 20)
                rest = expected.scatter(1, torch.from_numpy(target.tokens).long(), -torch.inf)
                assert target.rest == pytest.approx(rest.logsumexp(1).numpy(), rel=1e-3, abs=1e-3)
                expected = expected.gather(1, torch.from_numpy(target.tokens).long())
            assert target.logprobs == pytest.approx(expected.numpy(), rel=1e-3, abs=2e-3)
        assert [target is not None for target in found] == right
        assert any(right) or task == "said"  # whose golds nobody wrote
        assert all(right) == (task == "rolling")
        for target, own in zip(found, every, strict=True):
            assert target is None or np.array_equal(target.logprobs, own.logprobs)


def writes(logprobs, reading):
    best = logprobs.argmax(-1).tolist()
    return best[: len(reading.targets)] == list(reading.targets) and (
        not reading.ends or best[-1] in reading.ends
    )


@pytest.mark.parametrize(("likeliest", "tokens"), [(None, 300), (20, 10**6)])
def test_loss_and_gradient_are_those_of_plain_passes(some, student, likeliest, tokens, monkeypatch):
    if likeliest is not None:
        fewer = partial(divergence.told, whole=0, likeliest=likeliest)
        monkeypatch.setattr(divergence, "told", fewer)
    prompt = PromptStyle(system_instruction="Answer. " * 10)  # what all begin with is shared
    scorer = some.scorer(some.items(*TASKS, prompt=prompt))
    chosen = dict.fromkeys(TASKS, (0, 1, 3, 6))
    targets = {
        task: [scorer.loss.targets(some.module, task)[position] for position in positions]
        for task, positions in chosen.items()
    }
    del targets["said"]  # no teacher: its gold answers
    gold_shares = {"written": 0.25, "several": 0.5}
    engine = scorer.engine(student)
    engine.room = replace(engine.room, gradients=tokens, gradient_pass=tokens)
    found = scorer.loss.run(student, chosen, SHARES, targets=targets, gold_shares=gold_shares)
    gradient = torch.cat([each.grad.flatten() for each in student.parameters()])
    student.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for task, positions in chosen.items():
        asked = questions(scorer, student, task)
        own = targets.get(task, [None] * len(positions))
        losses = [
            reference(student, asked[position], target, gold_shares.get(task, 0.0))
            for position, target in zip(positions, own, strict=True)
        ]
        mean = torch.stack(losses).mean()
        assert found.tasks[task] == pytest.approx(mean.item(), rel=1e-6)
        total = total + SHARES[task] * mean
    total.backward()
    expected = torch.cat([each.grad.flatten() for each in student.parameters()])
    assert found.total == pytest.approx(total.item(), rel=1e-6)
    assert float((gradient - expected).norm() / expected.norm()) < 1e-6
    assert any(target is None for own in targets.values() for target in own)
    assert any(target is not None for own in targets.values() for target in own)


def test_a_share_of_one_is_the_gold_loss(llama):
    scorer = llama.scorer(llama.items("written", "choice"))
    student = tiny_module("llama", seed=1)
    chosen, shares = {"written": ITEMS, "choice": ITEMS}, {"written": 0.5, "choice": 0.5}
    targets = {task: scorer.loss.targets(llama.module, task) for task in chosen}
    run = partial(scorer.loss.run, student, chosen, shares, lambda part: None)
    with torch.inference_mode():
        gold_only = run()
        assert run(targets=targets, gold_shares={"written": 1.0, "choice": 1.0}) == gold_only
        taught = run(targets=targets)
        both = run(targets=targets, gold_shares={"written": 0.5, "choice": 0.5})
    assert taught.total != pytest.approx(gold_only.total, rel=1e-3)
    assert both.total == pytest.approx((taught.total + gold_only.total) / 2, rel=1e-5)


def test_a_module_is_no_way_from_itself(some):
    scorer = some.scorer(some.items(*TASKS))
    chosen = dict.fromkeys(TASKS, ITEMS)
    targets = {task: scorer.loss.targets(some.module, task, mistaken=True) for task in TASKS}
    with torch.inference_mode():
        found = scorer.loss.run(some.module, chosen, SHARES, lambda part: None, targets=targets)
    for task in TASKS:
        assert abs(found.tasks[task]) < 1e-4


def test_truncated_items_are_taught_what_was_read(llama):
    prompt = PromptStyle(system_instruction="Say what is asked for, and nothing else. " * 6)
    scorer = llama.scorer(llama.items("written", "said", prompt=prompt))
    student = copy.deepcopy(llama.module).double()
    for task in ("written", "said"):
        asked = questions(scorer, student, task)
        assert all(each.truncated for question in asked for each in question.readings)
        targets = scorer.loss.targets(tiny_module("llama", seed=1), task, mistaken=True)
        assert [len(each.logprobs) for each in targets] == [each.reads for each in asked]
        with torch.no_grad():
            found = scorer.loss.run(
                student, {task: ITEMS}, {task: 1.0}, lambda part: None, targets={task: targets}
            )
            expected = [reference(student, *each, 0.0) for each in zip(asked, targets, strict=True)]
        assert found.total == pytest.approx(float(sum(expected)) / 12, rel=1e-6)


def test_positions_of_a_group_run_over_all_its_tasks(llama):
    scorer = llama.scorer(llama.items("both", "choice", "choice_shots", search=20))
    targets = scorer.loss.targets(llama.module, "both", mistaken=True)
    leaves = llama.items("both", search=20).leaves("both", "search")
    assert len(targets) == sum(len(leaf.docs) for leaf in leaves) == 20


def test_passes_are_cut_with_the_copies_in_mind(llama, monkeypatch):
    scorer = llama.scorer(llama.items("written"))
    targets = {"written": scorer.loss.targets(llama.module, "written", mistaken=True)}
    engine = scorer.engine(llama.module)
    monkeypatch.setattr(engine, "most_reads", 60)
    counts = []
    for own in ({}, targets):
        parts = []
        with torch.inference_mode():
            scorer.loss.run(
                llama.module, {"written": ITEMS}, {"written": 1.0}, parts.append, targets=own
            )
        counts.append(len(parts))
    assert 1 < counts[0] < counts[1]


def test_an_answer_without_tokens_teaches_nothing(llama, monkeypatch):
    pairs = Encoder.pairs
    without = {1}
    monkeypatch.setattr(
        Encoder,
        "pairs",
        lambda self, texts, empty=False: [
            (context, [] if n in without else answer)
            for n, (context, answer) in enumerate(pairs(self, texts))
        ],
    )
    scorer = llama.scorer(llama.items("written"))
    found = scorer.loss.targets(llama.module, "written", mistaken=True)
    assert [target is None for target in found] == [n == 1 for n in ITEMS]
    without.update(ITEMS)
    scorer = llama.scorer(llama.items("written"))
    with pytest.raises(TaskError, match=r'"written" has no gold answer with tokens for search'):
        scorer.loss.targets(llama.module, "written")


METRIC = "teacher_divergence"


def test_the_divergence_of_a_model_is_a_metric(some, student):
    """By item the mean over its positions; in one go, beside other metrics, and in a race's blocks."""
    scorer = some.scorer(some.items(*TASKS))
    targets = {task: scorer.loss.targets(some.module, task, mistaken=True) for task in TASKS}
    metrics = dict.fromkeys(TASKS, (METRIC,))
    found = scorer.score(student, "search", metrics, targets=targets).tasks
    for task in TASKS:
        expected = []
        for question, target in zip(questions(scorer, student, task), targets[task], strict=True):
            with torch.no_grad():
                whole = reference(student, question, target, 0.0, temperature=1.0).item()
            positions = 1 if question.right or task == "rolling" else question.reads
            expected.append(whole / positions)
        assert found[task].metrics[METRIC] == pytest.approx(expected, rel=1e-5)
        assert found[task].values[METRIC].value == pytest.approx(np.mean(expected), rel=1e-5)
    names = dict.fromkeys(TASKS, (METRIC, "gold_loglikelihood"))
    names["written"] += ("exact_match,whole",)
    both = scorer.score(student, "search", names, targets=targets)
    assert both.generated_tokens > 0
    halves = [dict.fromkeys(TASKS, range(6)), dict.fromkeys(TASKS, range(6, 12))]
    *_, last = scorer.score_in_blocks(student, "search", metrics, halves, targets=targets)
    for other in (both.tasks, last.tasks):
        for task in TASKS:
            values = found[task].metrics[METRIC]
            assert other[task].metrics[METRIC] == pytest.approx(values, rel=1e-4, abs=1e-6)
    own = scorer.score(some.module, "search", metrics, targets=targets).tasks
    assert all(0 <= value < 1e-4 for each in own.values() for value in each.metrics[METRIC])


def test_the_divergence_of_a_group_is_over_all_its_items(llama):
    scorer = llama.scorer(llama.items("both", "choice", search=20))
    other = tiny_module("llama", seed=1)
    targets = {"both": scorer.loss.targets(llama.module, "both", mistaken=True)}
    scores = scorer.score(other, "search", {"both": (METRIC,)}, targets=targets).tasks["both"]
    assert len(scores.metrics[METRIC]) == 20
    assert scores.values[METRIC].value == pytest.approx(np.mean(scores.metrics[METRIC]))
    asked = questions(scorer, other, "both")
    with torch.no_grad():
        expected = [
            reference(other, *each, 0.0) for each in zip(asked, targets["both"], strict=True)
        ]
    assert scores.metrics[METRIC] == pytest.approx(
        [float(each) for each in expected], rel=1e-3, abs=1e-5
    )


def test_without_a_teacher_there_is_no_divergence(llama):
    items = llama.items("written", "choice")
    assert items.higher_is_better("written", METRIC) is False
    scorer = llama.scorer(items)
    scores = scorer.score(llama.module, "search", {"written": None, "choice": None}).tasks
    assert METRIC not in scores["written"].values
    asked = {"written": (METRIC,)}
    heard = scorer.loss.targets(llama.module, "written")
    missing = sum(target is None for target in heard)
    with pytest.raises(TaskError, match="needs what a teacher says of its search items; none came"):
        scorer.score(llama.module, "search", asked)
    with pytest.raises(TaskError, match=f"of {missing} of 12 search items it says nothing"):
        scorer.score(llama.module, "search", asked, targets={"written": heard})
    with pytest.raises(TaskError, match="5 targets for 12 items"):
        scorer.score(llama.module, "search", asked, targets={"written": heard[:5]})
    with pytest.raises(TaskError, match="needs resident scoring"):
        open_backend("hf", items).check(asked)


def test_errors(llama):
    scorer = llama.scorer(llama.items("written", "choice"))
    run = partial(scorer.loss.run, llama.module, {"written": (2, 3)}, {"written": 1.0})
    first, second, third = scorer.loss.targets(llama.module, "written", mistaken=True)[2:5]
    with pytest.raises(TaskError, match='"written": 3 targets for 2 items'):
        run(targets={"written": (first, second, third)})
    short = Target(second.logprobs[1:])
    with pytest.raises(TaskError, match=r'"written", item 3: the target is of \d+ positions'):
        run(targets={"written": (first, short)})
    narrow = Target(second.logprobs[:, 1:])
    with pytest.raises(TaskError, match=r"258 outcomes, and the item has \d+ with 259"):
        run(targets={"written": (None, narrow)})
    with pytest.raises(TaskError, match='no items of task "other"'):
        scorer.loss.targets(llama.module, "other")
    broken = copy.deepcopy(llama.module)
    scorer.engine(broken)
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    with pytest.raises(NotFinite):
        scorer.loss.targets(broken, "written")
