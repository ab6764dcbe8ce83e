import copy
import gc
from weakref import ref

import pytest
import torch

from evomerge.errors import TaskError
from evomerge.inference import NotFinite
from evomerge.inference.encoding import Encoder
from evomerge.inference.engine import Engine
from evomerge.tasks import PromptStyle
from evomerge.tasks.metrics import is_gold

NAMES = ("choice", "choice_shots", "written", "repeated", "said", "rolling")


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_neox", "gemma2"])
def test_every_metric_is_stock_lm_evals(subject, architecture):
    one = subject(architecture)
    items = one.items(*NAMES, search=15)
    metrics = {name: tuple(m for m in items.metrics(name) if not is_gold(m)) for name in NAMES}
    scored = one.scorer(items).score(one.module, "search", metrics)
    stock = one.oracle(items, *NAMES)
    for name in NAMES:
        filters = [each.name for each in items.loaded(name)._filters]
        for metric, estimate in scored.tasks[name].values.items():
            key = metric if "," in metric else f"{metric},{filters[0]}"
            assert estimate.value == pytest.approx(stock["results"][name][key], rel=1e-3), metric
            if estimate.stderr is not None:
                shown = stock["results"][name][key.replace(",", "_stderr,")]
                assert estimate.stderr == pytest.approx(shown)
    exact = scored.tasks["written"].values["exact_match,whole"].value
    assert 0 < exact < 1


def test_generated_text_is_stock_lm_evals(subject):
    one = subject("qwen2")
    items = one.items("written", search=20)
    scorer = one.scorer(items)
    (leaf,) = items.leaves("written", "search")
    scored = scorer.score(one.module, "search", {"written": ("exact_match,whole",)})
    stock = one.oracle(items, "written")["samples"]["written"]
    expected = {sample["doc"]["n"]: sample["resps"][0][0] for sample in stock}
    found = {
        doc["n"]: requests[0].resps[0]
        for doc, requests in zip(leaf.docs, leaf.requests, strict=True)
    }
    assert found == expected
    assert list(scored.tasks["written"].answers) == [found[doc["n"]] for doc in leaf.docs]
    assert len(set(found.values())) > 10


def test_of_a_choice_the_answer_is_what_lm_eval_counts(subject):
    one = subject("llama")
    items = one.items("choice", search=20)
    scored = one.scorer(items).score(one.module, "search", {"choice": ("acc",)}).tasks["choice"]
    (leaf,) = items.leaves("choice", "search")
    right = [
        answer == leaf.task.doc_to_choice(doc)[leaf.task.doc_to_target(doc)]
        for answer, doc in zip(scored.answers, leaf.docs, strict=True)
    ]
    assert right == [value == 1 for value in scored.metrics["acc"]]
    assert len(set(right)) == 2


def test_chat_template(llama):
    prompt = PromptStyle(apply_chat_template=True, fewshot_as_multiturn=True)
    items = llama.items("choice_shots", "repeated", prompt=prompt)
    scored = llama.scorer(items).score(
        llama.module, "search", {"choice_shots": ("acc",), "repeated": ("exact_match",)}
    )
    stock = llama.oracle(
        items, "choice_shots", "repeated", apply_chat_template=True, fewshot_as_multiturn=True
    )["results"]
    found = {name: next(iter(each.values.values())).value for name, each in scored.tasks.items()}
    assert found == {
        "choice_shots": stock["choice_shots"]["acc,none"],
        "repeated": stock["repeated"]["exact_match,vote"],
    }


@pytest.mark.parametrize("most", [3, 60])
def test_the_generation_configurations_limit_goes_before_the_tasks(llama, monkeypatch, most):
    """The task asks for up to 24 tokens; transformers takes the model's own `max_new_tokens` all the same."""
    monkeypatch.setattr(llama.module.generation_config, "max_new_tokens", most)
    items = llama.items("written", search=6)
    scored = llama.scorer(items).score(llama.module, "search", {"written": ("exact_match,first",)})
    stock = llama.oracle(items, "written")["samples"]["written"]
    theirs = {sample["doc"]["n"]: sample["resps"][0][0] for sample in stock}
    (leaf,) = items.leaves("written", "search")
    assert list(scored.tasks["written"].answers) == [theirs[doc["n"]] for doc in leaf.docs]


def test_a_group_is_aggregated_as_lm_eval_does(llama):
    items = llama.items("both", search=15)
    scored = llama.scorer(items).score(
        llama.module, "search", {"both": ("acc", "acc_norm", "gold_probability")}
    )
    stock = llama.oracle(items, "both")["results"]
    for metric in ("acc", "acc_norm"):
        estimate = scored.tasks["both"].values[metric]
        assert estimate.value == pytest.approx(stock["both"][f"{metric},none"])
        assert estimate.stderr == pytest.approx(stock["both"][f"{metric}_stderr,none"])
    assert scored.subtasks["choice"].values["acc"].value == stock["choice"]["acc,none"]
    assert scored.tasks["both"].items == items.ids("both", "search")
    assert len(scored.tasks["both"].metrics["acc"]) == scored.items == 15


def test_gold_metrics_are_what_they_say(llama):
    items = llama.items("choice", "written", "said", search=15)
    golds = ("gold_loglikelihood", "gold_exact_match")
    scorer = llama.scorer(items)
    scored = scorer.score(
        llama.module,
        "search",
        {
            "choice": (*golds, "gold_probability"),
            "written": (*golds, "exact_match,whole"),
            "said": (*golds, "acc"),
        },
    )
    stock = llama.oracle(items, "choice", "said")["samples"]
    for sample, share in zip(
        stock["choice"], scored.tasks["choice"].metrics["gold_probability"], strict=True
    ):
        sums = torch.tensor([response[0][0] for response in sample["resps"]])
        assert share == pytest.approx(float(sums.softmax(0)[sample["doc"]["label"]]), abs=1e-4)
    # A token is a byte here: lm-eval's sums over the answers' lengths.
    for name, answer in (("choice", None), ("said", "answer")):
        found = scored.tasks[name].metrics["gold_loglikelihood"]
        for sample, mean in zip(stock[name], found, strict=True):
            doc = sample["doc"]
            text = doc[answer] if answer else doc["choices"][doc["label"]]
            response = sample["resps"][0 if answer else doc["label"]][0][0]
            assert mean == pytest.approx(response / (len(text) + 1), abs=1e-4)
    written = scored.tasks["written"].metrics
    assert list(written["gold_exact_match"]) == list(written["exact_match,whole"])
    assert 0 < sum(written["gold_exact_match"]) < 15
    assert scored.tasks["said"].metrics["gold_exact_match"] == scored.tasks["said"].metrics["acc"]


def test_gold_metrics_never_generate(llama):
    items = llama.items("written")
    scored = llama.scorer(items).score(llama.module, "search", {"written": ("gold_loglikelihood",)})
    assert scored.generated_tokens == 0
    assert set(scored.tasks["written"].values) == {"gold_loglikelihood"}
    again = llama.scorer(items).score(llama.module, "search", {"written": ("exact_match,whole",)})
    assert again.generated_tokens > 0


def test_gold_choice_alone_equals_gold_choice_among_all(llama):
    items = llama.items("choice")
    scorer = llama.scorer(items)
    alone = scorer.score(llama.module, "search", {"choice": ("gold_loglikelihood",)}).tasks[
        "choice"
    ]
    among = scorer.score(llama.module, "search", {"choice": ("gold_loglikelihood", "acc")}).tasks[
        "choice"
    ]
    assert alone.metrics["gold_loglikelihood"] == pytest.approx(
        among.metrics["gold_loglikelihood"], abs=1e-5
    )


def test_the_second_time_nothing_is_tokenised(llama, monkeypatch):
    items = llama.items("choice", "written")
    scorer = llama.scorer(items)
    metrics = {"choice": ("acc",), "written": ("exact_match,whole", "gold_loglikelihood")}
    first = scorer.score(llama.module, "search", metrics)

    def refuse(*_, **__):
        raise AssertionError("tokenised again")

    monkeypatch.setattr(Encoder, "_encode", refuse)
    monkeypatch.setattr(type(llama.tokenizer), "__call__", refuse)
    assert scorer.score(llama.module, "search", metrics) == first


def test_scores_do_not_depend_on_the_batch(llama):
    items = llama.items("choice", search=20)
    small, large = (
        llama.scorer(items, batch_tokens=size)
        .score(llama.module, "search", {"choice": ("gold_loglikelihood", "acc")})
        .tasks["choice"]
        for size in (1, 100_000)
    )
    assert small.metrics["gold_loglikelihood"] == pytest.approx(
        large.metrics["gold_loglikelihood"], abs=1e-5
    )


def test_new_weights_new_scores(llama):
    items = llama.items("choice")
    scorer = llama.scorer(items)
    metrics = {"choice": ("gold_loglikelihood",)}
    before = scorer.score(llama.module, "search", metrics)
    weight = llama.module.get_output_embeddings().weight
    kept = weight.data.clone()
    try:
        weight.data.mul_(0.5)
        assert scorer.score(llama.module, "search", metrics) != before
        weight.data.fill_(torch.nan)
        with pytest.raises(NotFinite):
            scorer.score(llama.module, "search", metrics)
    finally:
        weight.data.copy_(kept)
    assert scorer.score(llama.module, "search", metrics) == before


def test_truncated_items_are_counted(llama):
    for request in (
        (items := llama.items("choice", search=3)).leaves("choice", "search")[0].requests[0]
    ):
        request.arguments = ("long " * 60 + request.args[0], request.args[1])
    scored = llama.scorer(items).score(llama.module, "search", {"choice": ("acc",)})
    assert scored.tasks["choice"].truncated == 1


def test_wrong_questions(llama):
    scorer = llama.scorer(llama.items("choice"))
    with pytest.raises(TaskError, match='task "choice" has no metric "bleu"'):
        scorer.score(llama.module, "search", {"choice": ("bleu",)})
    with pytest.raises(TaskError, match='no items of task "written"'):
        scorer.score(llama.module, "search", {"written": ("exact_match",)})
    with pytest.raises(TaskError, match="for holdout; there are: choice"):
        scorer.score(llama.module, "holdout", {"choice": ("acc",)})


def test_all_blocks_together_are_the_whole(llama):
    names = ("both", "written", "said", "rolling")
    items = llama.items(*names, search=16)
    metrics = {
        "both": ("acc", "acc_norm", "gold_probability"),
        "written": ("exact_match,whole", "gold_exact_match"),
        "said": ("perplexity", "acc"),
        "rolling": ("word_perplexity",),
    }
    whole = llama.scorer(items).score(llama.module, "search", metrics)
    blocks = (
        {"both": (0, 1, 9), "written": (5, 7, 15), "rolling": (3,)},
        {"both": (2, 3, 8, 15), "written": (0, 1), "said": (2, 4)},
        {
            "both": (4, 5, 6, 7, 10, 11, 12, 13, 14),
            "written": (2, 3, 4, 6, 8, 9, 10, 11, 12, 13, 14),
            "said": (0, 1, 3, *range(5, 16)),
            "rolling": (0, 1, 2, *range(4, 16)),
        },
    )
    scorer = llama.scorer(items)
    first, second, last = scorer.score_in_blocks(llama.module, "search", metrics, blocks)
    assert list(first.tasks) == ["both", "written", "rolling"]
    assert (first.items, second.items, last.items) == (7, 15, 64)
    assert 0 < first.generated_tokens < last.generated_tokens == whole.generated_tokens
    ids = items.ids("both", "search")
    assert second.tasks["both"].items == tuple(ids[n] for n in (0, 1, 2, 3, 8, 9, 15))
    assert second.tasks["written"].items == tuple(
        items.ids("written", "search")[n] for n in (0, 1, 5, 7, 15)
    )
    for found, expected in ((last.tasks, whole.tasks), (last.subtasks, whole.subtasks)):
        assert list(found) == list(expected)
        for task, scores in expected.items():
            assert found[task].items == scores.items
            assert found[task].truncated == scores.truncated
            for metric, values in scores.metrics.items():
                torch.testing.assert_close(
                    torch.tensor(found[task].metrics[metric]),
                    torch.tensor(values),
                    rtol=1e-4,
                    atol=0,
                )
                estimate = found[task].values[metric]
                assert estimate.value == pytest.approx(scores.values[metric].value, rel=1e-5)
    for task, metric in (("both", "acc"), ("written", "exact_match,whole"), ("said", "acc")):
        assert last.tasks[task].metrics[metric] == whole.tasks[task].metrics[metric]
        assert last.tasks[task].values[metric] == whole.tasks[task].values[metric]


def test_items_are_tokenised_once_whatever_the_blocks_and_scored_only_when_asked_for(
    llama, monkeypatch
):
    items = llama.items("choice", "written")
    scorer = llama.scorer(items)
    metrics = {"choice": ("acc",), "written": ("exact_match,whole",)}
    half = tuple(range(6)), tuple(range(6, 12))
    blocks = tuple({"choice": part, "written": part} for part in half)
    expected = list(scorer.score_in_blocks(llama.module, "search", metrics, blocks))

    def refuse(*_, **__):
        raise AssertionError("tokenised again")

    monkeypatch.setattr(Encoder, "_encode", refuse)
    monkeypatch.setattr(type(llama.tokenizer), "__call__", refuse)
    assert list(scorer.score_in_blocks(llama.module, "search", metrics, blocks)) == expected
    other = ({"choice": (0, 7), "written": (3,)}, {"choice": (1, 2)})
    list(scorer.score_in_blocks(llama.module, "search", metrics, other))
    found = scorer.score_in_blocks(llama.module, "search", metrics, blocks)
    assert next(found) == expected[0]
    monkeypatch.setattr(Engine, "read", refuse)
    with pytest.raises(AssertionError):
        next(found)


def test_modules_of_another_depth_share_items_and_leave_nothing_behind(llama, monkeypatch):
    items = llama.items("choice", "written")
    metrics = {"choice": ("acc", "gold_loglikelihood"), "written": ("exact_match,whole",)}
    scorer = llama.scorer(items)
    deeper = copy.deepcopy(llama.module)
    deeper.model.layers.append(copy.deepcopy(deeper.model.layers[0]))
    deeper.model.layers[-1].self_attn.layer_idx = 2
    deeper.config.num_hidden_layers = 3
    expected = [
        llama.scorer(items).score(each, "search", metrics) for each in (llama.module, deeper)
    ]
    assert expected[0] != expected[1]
    assert scorer.score(llama.module, "search", metrics) == expected[0]

    def refuse(*_, **__):
        raise AssertionError("tokenised again")

    monkeypatch.setattr(Encoder, "_encode", refuse)
    assert scorer.score(deeper, "search", metrics) == expected[1]
    assert scorer.score(llama.module, "search", metrics) == expected[0]
    gone = ref(deeper)
    del deeper
    gc.collect()
    assert gone() is None
    assert len(scorer._engines) == 1


def test_a_module_that_is_not_finite_at_first_is_tried_out_again(llama):
    items = llama.items("choice")
    scorer = llama.scorer(items)
    weight = llama.module.get_output_embeddings().weight
    kept = weight.data.clone()
    try:
        weight.data.fill_(torch.nan)
        with pytest.raises(NotFinite):
            scorer.score(llama.module, "search", {"choice": ("acc",)})
    finally:
        weight.data.copy_(kept)
    assert scorer.engine(llama.module)._forward.takes_masks
