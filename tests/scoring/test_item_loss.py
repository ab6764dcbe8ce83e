"""The loss on chosen items: the scorer's own numbers, differentiable, however it is cut."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from evomerge.errors import TaskError
from evomerge.inference.encoding import Encoder
from evomerge.scoring import gold_count
from evomerge.tasks import PromptStyle

TASKS = ("choice_shots", "written", "said", "rolling", "several")
CHOSEN = dict.fromkeys(TASKS, (0, 3, 4, 9))
SHARES = {"choice_shots": 0.4, "written": 0.3, "said": 0.1, "rolling": 0.1, "several": 0.1}
SOME = {"choice": 0.5, "written": 0.5}


def run(one, scorer, chosen=CHOSEN, shares=SHARES, **options):
    with torch.inference_mode():
        return scorer.loss.run(one.module, chosen, shares, lambda part: None, **options)


@pytest.fixture(params=["llama", "qwen2", "gpt_neox"])
def some(request, subject):
    return subject(request.param)


def test_losses_are_what_the_scorer_finds(some):
    items = some.items(*TASKS)
    scorer = some.scorer(items)
    names = dict.fromkeys(("written", "said"), ("gold_loglikelihood",))
    names |= {"choice_shots": ("gold_probability",), "several": ("gold_probability",)}
    scored = scorer.score(some.module, "search", names | {"rolling": ("gold_loglikelihood",)}).tasks
    encoder = scorer.engine(some.module).encoder
    work = {
        task: scorer.tokenised(encoder, *items.leaves(task, "search")).questions for task in TASKS
    }
    expected = {}
    for task in TASKS:
        (values,) = scored[task].metrics.values()
        picked = []
        for position in CHOSEN[task]:
            value = torch.tensor(values[position], dtype=torch.float64)
            if task in ("choice_shots", "several"):
                picked.append(-value.log().item())
            elif task == "rolling":
                picked.append(-value.item())
            else:
                picked.append(-value.item() * work[task][position].reads)
        expected[task] = sum(picked) / len(picked)
    found = run(some, scorer)
    assert found.items == 20
    assert dict(found.tasks) == pytest.approx(expected, rel=1e-4)
    total = sum(SHARES[task] * value for task, value in expected.items())
    assert found.total == pytest.approx(total, rel=1e-4)


def test_however_small_the_parts_the_gradient_is_the_same(some):
    items = some.items(*TASKS)
    scorer = some.scorer(items)
    module = copy.deepcopy(some.module).double().requires_grad_(True)
    found = []
    for tokens, recompute in ((10**6, False), (300, False), (1, False), (300, True)):
        other = some.scorer(items)
        engine = other.engine(module)
        engine.room = replace(
            engine.room, gradients=tokens, gradient_pass=max(tokens, 64), recompute=recompute
        )
        parts = []

        def differentiate(part, parts=parts):
            parts.append(part.item())
            part.backward()

        module.zero_grad()
        losses = other.loss.run(module, CHOSEN, SHARES, differentiate)
        assert sum(parts) == pytest.approx(losses.total)
        gradient = torch.cat([each.grad.flatten() for each in module.parameters()])
        found.append((len(parts), losses, gradient))
    counts = [count for count, _, _ in found]
    assert counts[0] == 1
    assert counts[0] < counts[1] < counts[2] == 20
    for _, losses, gradient in found[1:]:
        assert losses.total == pytest.approx(found[0][1].total, rel=1e-5)
        error = (gradient - found[0][2]).norm() / found[0][2].norm()
        assert error < 1e-4
    assert run(some, scorer).total == pytest.approx(found[0][1].total, rel=1e-4)


def test_where_layers_are_computed_anew_nothing_is_cached(llama, monkeypatch):
    items = llama.items("choice", prompt=PromptStyle(system_instruction="Choose a word. " * 5))
    scorer = llama.scorer(items)
    cached = []
    engine = scorer.engine(llama.module)
    plan = engine.plan

    def watched(readings, **options):
        batches = plan(readings, **options)
        cached.append(any(batch.preamble.shape[1] for batch in batches))
        return batches

    monkeypatch.setattr(engine, "plan", watched)
    chosen = {"choice": range(12)}
    totals = []
    for recompute in (False, True):
        engine.room = replace(engine.room, recompute=recompute)
        totals.append(run(llama, scorer, chosen, {"choice": 1}).total)
    assert cached == [True, False]
    assert totals[0] == pytest.approx(totals[1], rel=1e-5)


def test_positions_of_a_group_run_over_all_its_tasks(llama):
    items = llama.items("both", "written")
    scorer = llama.scorer(items)
    ids = items.ids("both", "search")
    first, second = items.leaves("both", "search")
    assert len(ids) == 12
    whole = run(llama, scorer, {"both": range(12), "written": ()}, {"both": 2.0})
    one = run(llama, scorer, {"both": range(len(first.ids))}, {"both": 1.0}).total
    other = run(llama, scorer, {"both": range(len(first.ids), 12)}, {"both": 1.0}).total
    mean = (one * len(first.ids) + other * len(second.ids)) / 12
    assert set(whole.tasks) == {"both"}
    assert whole.tasks["both"] == pytest.approx(mean, rel=1e-5)
    assert whole.total == pytest.approx(2 * mean, rel=1e-5)


def test_items_are_tokenised_once(llama, monkeypatch):
    items = llama.items("choice", "written")
    scorer = llama.scorer(items)
    shares = {"choice": 0.5, "written": 0.5}
    before = run(llama, scorer, {"choice": (0, 1), "written": (2,)}, shares)

    def refuse(*_, **__):
        raise AssertionError("tokenised again")

    monkeypatch.setattr(Encoder, "_encode", refuse)
    again = run(llama, scorer, {"choice": (0, 1), "written": (2,)}, shares)
    assert again == before
    assert run(llama, scorer, {"choice": (5,)}, shares).total != before.total


def test_errors(llama):
    scorer = llama.scorer(llama.items("choice"))
    with pytest.raises(
        TaskError, match=r'"choice" has 12 items with a gold answer.*there is no item 12'
    ):
        run(llama, scorer, {"choice": (12,)}, {"choice": 1.0})
    with pytest.raises(TaskError, match='no items of task "other"'):
        run(llama, scorer, {"other": (0,)}, {"other": 1.0})


def without_gold(items, task, field, value, *documents):
    """Take the gold answer from some documents of a task."""
    (leaf,) = items.leaves(task, "search")
    docs = [{**doc, field: value} if n in documents else doc for n, doc in enumerate(leaf.docs)]
    items._chosen[task, "search"] = (replace(leaf, docs=tuple(docs)),)


def test_items_without_gold_answer_are_no_part_of_the_loss(llama):
    items = llama.items("choice", "written", "rolling", "both")
    assert [gold_count(items, task) for task in items.tasks] == [12] * 4
    before = run(llama, llama.scorer(items), {"choice": (1, 3, 4), "written": (2, 4, 5)}, SOME)
    without_gold(items, "choice", "label", -1, 0, 2)
    without_gold(items, "written", "answer", " \n", 0, 1, 3)
    assert gold_count(items, "choice") == 10
    assert gold_count(items, "written") == 9
    scorer = llama.scorer(items)
    after = run(llama, scorer, {"choice": (0, 1, 2), "written": (0, 1, 2)}, SOME)
    assert after.items == 6
    assert dict(after.tasks) == pytest.approx(dict(before.tasks))
    with pytest.raises(TaskError, match='"written" has 9 items with a gold answer'):
        run(llama, scorer, {"written": (9,)}, SOME)
    without_gold(items, "written", "answer", "", *range(12))
    assert gold_count(items, "written") == 0


def test_an_answer_without_tokens_has_no_loss(llama, monkeypatch):
    items = llama.items("written")
    scorer = llama.scorer(items)
    expected = run(llama, scorer, {"written": (0, 2)}, {"written": 1.0})
    scorer = llama.scorer(items)
    pairs = Encoder.pairs
    monkeypatch.setattr(
        Encoder,
        "pairs",
        lambda self, texts, empty=False: [
            (context, [] if n == 1 else answer)
            for n, (context, answer) in enumerate(pairs(self, texts))
        ],
    )
    assert run(llama, scorer, {"written": (0, 1, 2)}, {"written": 1.0}) == expected


def test_chat_templates_are_kept(llama):
    plain, templated = (
        run(llama, llama.scorer(items), {"written": range(12)}, {"written": 1.0}).total
        for items in (
            llama.items("written"),
            llama.items("written", prompt=PromptStyle(apply_chat_template=True)),
        )
    )
    assert plain != pytest.approx(templated, rel=1e-3)
