from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import TaskError
from evomerge.tasks import Items, SplitPlan, TaskRequest, load_items
from evomerge.tasks.documents import document_keys, same_documents
from evomerge.tasks.tasks import load_task

WORDS = ["red", "green", "blue", "apple", "pear", "stone", "river", "cloud", "seven", "nine"]
COUNT = 120
PLAN = SplitPlan({"search": 20, "select": 20, "holdout": 40})

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{{files}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{text}"
doc_to_target: "{target}"
metric_list: [{{metric: {metric}, aggregation: mean, higher_is_better: true}}]
"""


def question(number: int) -> dict[str, Any]:
    rng = Random(number)
    return {"question": f"{' '.join(rng.sample(WORDS, 3))} {number}?", "answer": rng.choice(WORDS)}


class Folder:
    """Task files over data files."""

    def __init__(self, path: Path, tokenizer: Any) -> None:
        self.path, self.tokenizer = path, tokenizer

    def add(
        self,
        name: str,
        documents: list[dict[str, Any]],
        text: str = "{{question}}",
        *,
        choices: bool = False,
        target: str = "answer",
        more: str = "",
        **splits: list[dict[str, Any]],
    ) -> None:
        files = []
        for split, docs in {"test": documents, **splits}.items():
            file = self.path / f"{name}.{split}.jsonl"
            file.write_text("".join(json.dumps(doc) + "\n" for doc in docs))
            files.append(f"{split}: '{file}'")
        kind = "multiple_choice" if choices else "generate_until"
        written = TASK.format(
            name=name,
            files=", ".join(files),
            kind=kind,
            text=text,
            target="{{label}}" if choices else target,
            metric="acc" if choices else "exact_match",
        )
        (self.path / f"{name}.yaml").write_text(
            written + ("doc_to_choice: choices\n" if choices else "") + more
        )

    def load(self, *names: str, plan: SplitPlan = PLAN, shots: int | None = None) -> Items:
        return load_items(
            [TaskRequest(name, shots) for name in names],
            tokenizer=self.tokenizer,
            tasks_path=str(self.path),
            plan=plan,
        )


def sides(items: Items, *names: str) -> dict[int, set[str]]:
    """Which question → the splits that it is in, over all tasks."""
    found: dict[int, set[str]] = {}
    for name in names:
        for split in items.splits:
            for leaf in items.leaves(name, split):
                for doc in leaf.docs:
                    number = int(
                        doc["question" if "question" in doc else "prompt"].split()[-1][:-1]
                    )
                    found.setdefault(number, set()).add(split)
    return found


def leaks(items: Items, *names: str) -> int:
    return sum(len(splits) > 1 for splits in sides(items, *names).values())


@pytest.fixture
def folder(tmp_path: Path, llama: Any) -> Folder:
    return Folder(tmp_path, llama.tokenizer)


def with_choices(doc: dict[str, Any], number: int) -> dict[str, Any]:
    rng = Random(number + 1000)
    wrong = rng.sample([word for word in WORDS if word != doc["answer"]], 3)
    label = rng.randrange(4)
    return {**doc, "choices": [*wrong[:label], doc["answer"], *wrong[label:]], "label": label}


PLAIN = [question(number) for number in range(COUNT)]
CHOOSING = [with_choices(doc, number) for number, doc in enumerate(PLAIN)]


def renamed(doc: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": f"  {doc['question']}\n", "level": 3, "answer": doc["answer"]}


@pytest.mark.parametrize(
    ("documents", "text", "choices"),
    [
        (PLAIN, "{{question}}", False),
        (PLAIN, "Q: {{question}}\\nA:", False),
        (PLAIN[::-1], "question", False),
        (CHOOSING, "{{question}}", True),
        (CHOOSING, "Q: {{question}} One of {{choices | join(', ')}}.\\nA:", True),
        ([renamed(doc) for doc in PLAIN], "{{prompt}}", False),
        ([renamed(doc) for doc in PLAIN], "Please answer. {{prompt}} ({{level}})", False),
        (PLAIN[40:] + [question(n) for n in range(1000, 1060)], "Say: {{question}}", False),
    ],
    ids=["same", "template", "order", "choices", "options", "renamed", "both", "overlap"],
)
def test_the_same_questions_are_on_one_side_whatever_the_task_makes_of_them(
    folder: Folder, documents: list[dict[str, Any]], text: str, choices: bool
) -> None:
    folder.add("one", PLAIN)
    folder.add("two", documents, text, choices=choices)
    items = folder.load("one", "two")
    assert leaks(items, "one", "two") == 0
    for name in ("one", "two"):
        assert {split: len(items.ids(name, split)) for split in PLAN.counts} == PLAN.counts


def test_versions_of_one_question_within_a_task_are_on_one_side(folder: Folder) -> None:
    versions = [with_choices(doc, n + seed) for seed in (0, 500) for n, doc in enumerate(PLAIN)]
    folder.add("one", versions, choices=True)
    assert leaks(folder.load("one"), "one") == 0


def test_splits_of_the_data_set_may_share_documents(folder: Folder) -> None:
    folder.add("one", PLAIN, validation=PLAIN[::-1], more="validation_split: validation\n")
    plan = SplitPlan(PLAN.counts, drawn_from={"search": "validation"})
    assert leaks(folder.load("one", plan=plan), "one") == 0


def test_what_all_documents_share_makes_them_no_one(folder: Folder) -> None:
    docs = [
        {**doc, "topic": "the same long story " * 5, "kind": n % 3} for n, doc in enumerate(PLAIN)
    ]
    folder.add("one", docs, "{{topic}}{{kind}} {{question}}")
    folder.add("two", docs, "{{topic}}{{kind}}", target="question")
    items = folder.load("one", "two")
    assert {split: len(items.ids("one", split)) for split in PLAN.counts} == PLAN.counts
    assert leaks(items, "one", "two") == 0


def test_holdout_documents_are_no_examples_of_other_items(folder: Folder) -> None:
    pool = "fewshot_split: test\n"
    folder.add("one", PLAIN, more=pool)
    folder.add("two", PLAIN, "Q: {{question}}", train=PLAIN[::-1], more="fewshot_split: train\n")
    items = folder.load("one", "two", shots=3)
    held = {n for n, splits in sides(items, "one").items() if splits == {"holdout"}}
    assert len(held) == PLAN.counts["holdout"]
    for name in ("one", "two"):
        for split in ("search", "select"):
            (leaf,) = items.leaves(name, split)
            for (request,) in leaf.requests:
                shown = [
                    int(part.split("?")[0].split()[-1]) for part in request.args[0].split("\n\n")
                ]
                assert len(shown) == 4
                assert not held & set(shown)


def test_too_few_examples_beside_the_holdout_items_are_refused(folder: Folder) -> None:
    folder.add("one", PLAIN, more="fewshot_split: test\n")
    plan = SplitPlan({"search": 1, "select": 1, "holdout": 117})
    with pytest.raises(TaskError, match="3 few-shot examples asked, but only 3 are left"):
        folder.load("one", plan=plan, shots=3)


@given(st.lists(st.frozensets(st.integers(0, 12), min_size=1, max_size=3), max_size=12), st.data())
def test_labels_are_those_of_connected_parts_in_any_order(sets: Any, data: Any) -> None:
    keys = [frozenset(f"{number:02}" for number in each) for each in sets]
    labels = same_documents(keys)
    for one, label in zip(keys, labels, strict=True):
        for other, its in zip(keys, labels, strict=True):
            if one & other:
                assert label == its
    order = data.draw(st.permutations(range(len(keys))))
    assert same_documents([keys[n] for n in order]) == tuple(labels[n] for n in order)
    assert len(set(labels)) == _parts(keys)


def _parts(keys: list[frozenset[str]]) -> int:
    parts: list[frozenset[str]] = []
    for each in keys:
        touching = [part for part in parts if part & each]
        parts = [part for part in parts if not part & each] + [each.union(*touching)]
    return len(parts)


def test_a_document_without_a_prompt_is_known_by_its_content(folder: Folder) -> None:
    docs = [{**doc, "more": None if n else "an own text"} for n, doc in enumerate(PLAIN[:5])]
    folder.add("one", docs, "{{more.lower()}}")
    task = load_task(TaskRequest("one"), tasks_path=str(folder.path))
    assert [len(each) for each in document_keys(task, docs)] == [2, 1, 1, 1, 1]


def test_a_few_wordings_of_one_instruction_mark_no_document(folder: Folder) -> None:
    docs = [
        {**with_choices(doc, n), "which": f"Which is right ({n % 10})?"}
        for n, doc in enumerate(PLAIN)
    ]
    folder.add("one", docs, "{{which}}", choices=True)
    items = folder.load("one")
    assert {split: len(items.ids("one", split)) for split in PLAN.counts} == PLAN.counts
