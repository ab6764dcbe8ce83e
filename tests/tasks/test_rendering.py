import pytest

from evomerge.errors import TaskError
from evomerge.tasks import PromptStyle, SplitPlan, TaskRequest, load_items


def requests_of(items, name, split="search"):
    (leaf,) = items.leaves(name, split)
    return [request.args for requests in leaf.requests for request in requests]


@pytest.mark.parametrize(
    "prompt",
    [
        PromptStyle(),
        PromptStyle(system_instruction="Be brief."),
        PromptStyle(apply_chat_template=True),
        PromptStyle(apply_chat_template=True, fewshot_as_multiturn=True, system_instruction="Hm."),
    ],
)
def test_requests_are_stock_lm_evals(llama, prompt):
    names = ("choice_shots", "repeated")
    items = llama.items(*names, prompt=prompt, search=5)
    stock = llama.oracle(
        items,
        *names,
        apply_chat_template=prompt.apply_chat_template,
        fewshot_as_multiturn=prompt.fewshot_as_multiturn,
        system_instruction=prompt.system_instruction,
    )
    for name in names:
        expected = [pair for sample in stock["samples"][name] for pair in sample["arguments"]]
        # generation_kwargs differ by what HFLM itself adds to `until`
        assert [pair[0] for pair in requests_of(items, name)] == [pair[0] for pair in expected]
        if name == "choice_shots":
            assert requests_of(items, name) == expected


def test_examples_do_not_move(llama):
    first, second = (requests_of(llama.items("choice_shots"), "choice_shots") for _ in range(2))
    assert first == second


def test_items_from_the_examples_pool_are_no_examples(llama):
    items = load_items(
        [TaskRequest("choice_shots")],
        tokenizer=llama.tokenizer,
        tasks_path=llama.tasks_path,
        plan=SplitPlan({"search": 15, "holdout": 4}, drawn_from={"search": "train"}),
    )
    (leaf,) = items.leaves("choice_shots", "search")
    shown = [requests[0].args[0].rpartition("Question:")[0] for requests in leaf.requests]
    assert all(f"Question: {doc['question']}\n" not in "".join(shown) for doc in leaf.docs)
    assert all(text.count("Question:") == 3 for text in shown)


def test_too_few_examples_left(llama):
    with pytest.raises(TaskError, match="3 few-shot examples asked, but only 1 are left"):
        load_items(
            [TaskRequest("choice_shots")],
            tokenizer=llama.tokenizer,
            tasks_path=llama.tasks_path,
            plan=SplitPlan({"search": 19}, drawn_from={"search": "train"}),
        )


def test_templates_are_rendered_once(llama):
    (leaf,) = llama.items("written").leaves("written", "search")
    answers = [leaf.task.doc_to_target(doc) for doc in leaf.docs]
    leaf.task.set_config("doc_to_target", "something else")
    assert [leaf.task.doc_to_target(doc) for doc in leaf.docs] == answers


def test_empty_continuation(tmp_path, llama):
    (tmp_path / "docs.py").write_text(
        "import datasets\n\ndef load(**_):\n"
        "    return {'test': datasets.Dataset.from_list([{'q': 'a', 'a': 'b'}, {'q': 'c', 'a': ''}])}\n"
    )
    (tmp_path / "empty.yaml").write_text(
        "task: empty\ncustom_dataset: !function docs.load\noutput_type: loglikelihood\n"
        "test_split: test\ndoc_to_text: q\ndoc_to_target: a\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    with pytest.raises(TaskError, match='task "empty": item 1 has an empty continuation'):
        load_items(
            [TaskRequest("empty")],
            tokenizer=llama.tokenizer,
            tasks_path=str(tmp_path),
            plan=SplitPlan({"search": 2}),
        )


TWO_KINDS = """
import datasets
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.task import ConfigurableTask

def load(**_):
    rows = [{"q": f"word {n}", "a": "x"} for n in range(4)]
    return {"test": datasets.Dataset.from_list(rows)}

class Two(ConfigurableTask):
    VERSION = 1
    def __init__(self, config=None):
        super().__init__(config={
            "task": "two", "custom_dataset": load, "test_split": "test", "doc_to_text": "{{q}}",
            "doc_to_target": "a",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        })
    def construct_requests(self, doc, ctx, chat_template=None, apply_chat_template=False, **kw):
        return [
            Instance("generate_until", doc, (ctx, {"until": ["."], "max_gen_toks": 4}), 0, **kw),
            Instance("loglikelihood", doc, (ctx, " unanswerable"), 1, **kw),
        ]
"""


def test_requests_of_several_kinds_are_refused(llama, tmp_path):
    """As those of lm-eval's squadv2; they would be scored as if they were of one kind."""
    (tmp_path / "code.py").write_text(TWO_KINDS)
    (tmp_path / "two.yaml").write_text("task: two\nclass: !function code.Two\n")
    line = (
        r'"two": item 0 makes 2 requests, generate_until and loglikelihood; expected generate_until'
    )
    with pytest.raises(TaskError, match=line):
        load_items(
            [TaskRequest("two")],
            tokenizer=llama.tokenizer,
            tasks_path=str(tmp_path),
            plan=SplitPlan({"search": None}, first=True),
        )


def test_no_chat_template(llama, subject):
    template, llama.tokenizer.chat_template = llama.tokenizer.chat_template, None
    try:
        with pytest.raises(TaskError, match="tokenizer has none"):
            llama.items("choice", prompt=PromptStyle(apply_chat_template=True))
    finally:
        llama.tokenizer.chat_template = template
