import pytest
from lm_eval.api.model import LM

from evomerge.errors import TaskError
from evomerge.scoring import lm_eval_backend
from evomerge.scoring.lm_eval_backend import LmEvalBackend
from evomerge.tasks.metrics import is_gold

NAMES = ("choice", "written", "repeated", "said", "rolling")
ARGUMENTS = {"device": "cpu", "batch_size": 4}


@pytest.fixture(scope="module")
def folder(subject, tmp_path_factory):
    one = subject("llama")
    path = tmp_path_factory.mktemp("model")
    one.module.save_pretrained(path)
    one.tokenizer.save_pretrained(path)
    return path


def test_hf_scores_what_the_resident_module_scores(llama, folder):
    items = llama.items(*NAMES, "both", search=12)
    metrics = {name: tuple(m for m in items.metrics(name) if not is_gold(m)) for name in NAMES}
    metrics["both"] = ("acc", "gold_probability", "gold_exact_match")
    ours = llama.scorer(items).score(llama.module, "search", metrics)
    theirs = LmEvalBackend(items, "hf", ARGUMENTS).score(folder, "search", metrics)
    assert theirs.items == ours.items
    assert set(theirs.subtasks) == {"choice", "choice_shots"}
    for name, scores in ours.tasks.items():
        assert theirs.tasks[name].items == scores.items
        for metric, estimate in scores.values.items():
            found = theirs.tasks[name].values[metric]
            assert found.value == pytest.approx(estimate.value, rel=1e-4), (name, metric)


def test_what_a_backend_cannot_tell(llama, folder):
    items = llama.items("choice", "written")
    scorer = LmEvalBackend(items, "hf", ARGUMENTS)
    with pytest.raises(TaskError, match="gold_loglikelihood needs resident scoring"):
        scorer.score(folder, "search", {"written": ("gold_loglikelihood",)})
    with pytest.raises(TaskError, match="gold_loglikelihood needs resident scoring"):
        scorer.score(folder, "search", {"choice": ("gold_loglikelihood",)})
    with pytest.raises(TaskError, match="gold_exact_match needs resident scoring"):
        scorer.check({"written": ("gold_exact_match",)})
    scorer.check({"written": ("exact_match,whole",), "choice": ("gold_exact_match",)})
    with pytest.raises(TaskError, match='has no metric "bleu"'):
        scorer.score(folder, "search", {"choice": ("bleu",)})


def test_an_unknown_backend(llama):
    with pytest.raises(TaskError, match='no backend "no_such_model"'):
        LmEvalBackend(llama.items("choice"), "no_such_model", {})


class Elsewhere(LM):
    """As vllm's: it says itself where it runs, and takes a share of the GPU."""

    def __init__(self, pretrained, trust_remote_code=False, gpu_memory_utilization=0.9, **kwargs):
        super().__init__()

    def loglikelihood(self, requests):
        return []

    loglikelihood_rolling = generate_until = loglikelihood


def test_a_type_is_given_what_its_constructor_names(llama, monkeypatch):
    defaults = {"device": "cpu", "trust_remote_code": True, "gpu_memory_utilization": 0.45}
    items = llama.items("choice")

    def given(kind, **arguments):
        return LmEvalBackend(items, kind, arguments, defaults=defaults)._arguments

    assert given("hf") == {"device": "cpu", "trust_remote_code": True}
    assert given("hf", device="cuda:1", trust_remote_code=False) == {
        "device": "cuda:1",
        "trust_remote_code": False,
    }
    monkeypatch.setattr(lm_eval_backend, "get_model", lambda name: Elsewhere)
    assert given("elsewhere") == {"trust_remote_code": True, "gpu_memory_utilization": 0.45}
    assert given("elsewhere", gpu_memory_utilization=0.3)["gpu_memory_utilization"] == 0.3
