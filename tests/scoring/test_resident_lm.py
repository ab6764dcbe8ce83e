import pytest
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from evomerge.errors import TaskError
from evomerge.scoring import ResidentLM

NAMES = ["repeated", "said", "rolling", "both"]


def evaluated(subject, model, **options):
    return simple_evaluate(
        model=model,
        tasks=NAMES,
        task_manager=TaskManager(include_path=subject.tasks_path, include_defaults=False),
        limit=12,
        bootstrap_iters=2,
        **options,
    )


@pytest.mark.parametrize("chat", [False, True])
def test_lm_eval_says_the_same_of_both(llama, chat):
    options = {"apply_chat_template": True, "fewshot_as_multiturn": True} if chat else {}
    ours = evaluated(llama, ResidentLM(llama.module, llama.tokenizer), **options)
    stock = evaluated(llama, HFLM(pretrained=llama.module, tokenizer=llama.tokenizer), **options)
    for task, row in stock["results"].items():
        for metric, value in row.items():
            if isinstance(value, float):
                assert ours["results"][task][metric] == pytest.approx(value, rel=1e-4), metric
    for task, samples in stock["samples"].items():
        for mine, his in zip(ours["samples"][task], samples, strict=True):
            for answer, expected in zip(mine["resps"], his["resps"], strict=True):
                if isinstance(expected[0], str):
                    assert answer == expected
                else:
                    assert answer[0] == pytest.approx(expected[0], rel=1e-6, abs=1e-4)


def test_sampling_is_refused(llama):
    request = Instance("generate_until", {}, ("red", {"do_sample": True, "temperature": 1.0}), 0)
    with pytest.raises(TaskError, match="samples"):
        ResidentLM(llama.module, llama.tokenizer).generate_until([request])


def test_names_for_lm_evals_notes(llama):
    lm = ResidentLM(llama.module, llama.tokenizer)
    assert "/" not in lm.tokenizer_name
    assert lm.chat_template() == ""
    assert "message" in lm.chat_template(True)
