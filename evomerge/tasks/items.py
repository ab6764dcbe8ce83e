"""The chosen documents of every task and split, and lm-eval's requests for them, built once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from lm_eval.api.group import Group
from lm_eval.api.task import Task
from transformers import PreTrainedTokenizerBase
from xxhash import xxh3_128

from evomerge.candidate.trial import SPLITS, Split
from evomerge.errors import TaskError
from evomerge.tasks.documents import document_keys, same_documents
from evomerge.tasks.metrics import directions, is_gold, is_item_mean, resolve
from evomerge.tasks.rendering import Leaf, build_leaf, chat_template
from evomerge.tasks.requested import PromptStyle, Source, SplitPlan, TaskRequest
from evomerge.tasks.splits import Chosen, DocumentPool, content_of, document_ids, draw, share_out
from evomerge.tasks.tasks import leaves, load_task, name_of


class Items:
    """Everything that is scored: per requested task and split, documents, ids and requests.

    Attributes:
        tokenizer: Renders chat templates, and reads the prompts.
    """

    def __init__(
        self,
        loaded: Mapping[str, Task | Group],
        chosen: Mapping[tuple[str, Split], tuple[Leaf, ...]],
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        self.tokenizer = tokenizer
        self._loaded = dict(loaded)
        self._chosen = dict(chosen)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The requested tasks and groups, in the order of the requests."""
        return tuple(self._loaded)

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that hold items."""
        return tuple(split for split in SPLITS if any(key[1] == split for key in self._chosen))

    def ids(self, task: str, split: Split) -> tuple[str, ...]:
        """Return the stable ids of a task's items, in the order in which they are scored.

        Raises:
            TaskError: No such task among the items, or no such split.
        """
        return tuple(identifier for leaf in self.leaves(task, split) for identifier in leaf.ids)

    def leaves(self, task: str, split: Split) -> tuple[Leaf, ...]:
        """Return the chosen documents of a task, or of each task of a group. Raises as `ids` does."""
        if (task, split) not in self._chosen:
            have = ", ".join(f"{name} ({part})" for name, part in self._chosen)
            raise TaskError(f'no items of task "{task}" for {split}; there are: {have}')
        return self._chosen[task, split]

    def texts(self, split: Split) -> dict[str, list[tuple[str, str]]]:
        """Return task → of each of its items, in the order of `ids`, prompt and gold answer, or ""."""
        return {
            task: [text for leaf in leaves for text in leaf.texts()]
            for (task, part), leaves in self._chosen.items()
            if part == split
        }

    def loaded(self, task: str) -> Task | Group:
        """Return lm-eval's task or group behind a requested name."""
        return self._loaded[task]

    def metrics(self, task: str) -> dict[str, bool]:
        """Return every metric of a task → whether higher is better.

        Raises:
            TaskError: No such task among the items.
        """
        if task not in self._loaded:
            raise TaskError(f'no items of task "{task}"; there are: {", ".join(self._loaded)}')
        return directions(self._loaded[task])

    def higher_is_better(self, task: str, metric: str) -> bool:
        """Return a metric's direction.

        Raises:
            TaskError: No such task, or the task has no such metric; the known ones are named.
        """
        known = self.metrics(task)
        if metric in known:
            return known[metric]
        return known[resolve(task, self._loaded[task], metric)[0]]

    def check_metric(self, task: str, metric: str, splits: Sequence[Split] = ()) -> None:
        """Check that a task has a metric and, for one on the gold answer, that all items of splits have one.

        Raises:
            TaskError: No such task, metric or split, or items without gold answer, which are counted.
        """
        self.higher_is_better(task, metric)
        for split in splits if is_gold(metric) else ():
            faults = self.gold_faults(task, split)
            if faults:
                raise TaskError(
                    f'task "{task}": {metric} needs a gold answer for every item, and {len(faults)} of '
                    f"{len(self.ids(task, split))} {split} items have none ({faults[0]}); take one of "
                    "the task's own metrics, or correct doc_to_target"
                )

    def gold_faults(self, task: str, split: Split) -> list[str]:
        """Say why items have no gold answer, one reason for each of those. Raises as `ids` does."""
        return [fault for leaf in self.leaves(task, split) for fault in leaf.gold_faults]

    def race_fault(self, task: str, metric: str) -> str | None:
        """Say in one line why candidates cannot be given up by this metric before all items are scored.

        None for the plain mean of one number an item. Raises as `higher_is_better` does.
        """
        self.check_metric(task, metric)
        if is_item_mean(self._loaded[task], metric):
            return None
        return f'{metric} of task "{task}" is not a plain mean of one number an item'

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """Task → hash over every prompt of every split: equal digests, equal questions."""
        found = {}
        for task in self.tasks:
            state = xxh3_128()
            for split in self.splits:
                for leaf in self._chosen.get((task, split), ()):
                    for identifier, requests in zip(leaf.ids, leaf.requests, strict=True):
                        asked = (split, identifier, [each.args for each in requests])
                        state.update(repr(asked).encode())
            found[task] = state.hexdigest()
        return found


def load_items(
    requests: Sequence[TaskRequest],
    *,
    tokenizer: PreTrainedTokenizerBase,
    tasks_path: str | None,
    plan: SplitPlan,
    prompt: PromptStyle = PromptStyle(),  # noqa: B008 - frozen
    allow_unsafe_code: bool = False,
    trust_remote_code: bool = False,
) -> Items:
    """Load tasks, choose their documents and build lm-eval's requests for them.

    Prompts are those of `lm_eval.simple_evaluate(..., samples=...)` on each split's documents, with
    its default seeds; few-shot examples are drawn once and stay fixed.

    Args:
        requests: Tasks and groups.
        tokenizer: Renders chat templates.
        tasks_path: A folder of task files, searched before lm-eval's own.
        plan: How many items each split gets.
        prompt: How prompts are rendered.
        allow_unsafe_code: Let tasks execute the code that a model writes.
        trust_remote_code: Let data sets bring code of their own (releases of `datasets` before 4).

    Raises:
        TaskError: A task is unknown, broken, without data, asked twice, has no such data set split,
            fewer items than asked, or an empty continuation.
    """
    render = chat_template(tokenizer, prompt)
    loaded: dict[str, Task | Group] = {}
    for request in requests:
        if request.task in loaded:
            raise TaskError(f'task "{request.task}" is asked twice')
        loaded[request.task] = load_task(
            request,
            tasks_path=request.answers or tasks_path,
            allow_unsafe_code=allow_unsafe_code,
            trust_remote_code=trust_remote_code,
        )
    answered = {request.task for request in requests if request.answers is not None}
    found = {
        name: [_Documents(task, plan, answered=name in answered) for task in leaves(item)]
        for name, item in loaded.items()
    }
    drawn, held_out = _drawn(found, plan)
    chosen = {
        (name, split): tuple(
            build_leaf(
                documents.task,
                documents.of[plan.drawn_from.get(split)],
                own[split],
                PromptStyle() if name in answered else prompt,
                None if name in answered else render,
                grouped=isinstance(loaded[name], Group),
                hidden=frozenset() if split == "holdout" else held_out,
            )
            for documents, own in zip(parts, drawn[name], strict=True)
        )
        for name, parts in found.items()
        for split in plan.counts
    }
    return Items(loaded, chosen, tokenizer)


class _Documents:
    """The documents of one task, by the data set's split that a plan draws from."""

    def __init__(self, task: Task, plan: SplitPlan, *, answered: bool) -> None:
        self.task = task
        sources = {plan.drawn_from.get(split) for split in plan.counts}
        self.of = {source: _documents(task, source) for source in sources}
        asked = {
            source: [{"prompt": each["prompt"]} for each in docs] if answered else docs
            for source, docs in self.of.items()
        }
        self.ids = {source: document_ids(docs) for source, docs in asked.items()}
        self.keys = {
            source: [frozenset({content_of(each)}) for each in self.ids[source]]
            if plan.first  # nothing is drawn
            else document_keys(task, list(docs))
            for source, docs in asked.items()
        }
        self.labels: dict[Source | None, tuple[str, ...]] = {}


def _drawn(
    found: Mapping[str, Sequence[_Documents]], plan: SplitPlan
) -> tuple[dict[str, list[Chosen]], frozenset[str]]:
    """Draw from all tasks together.

    Returns:
        Requested task or group → what is chosen of each of its tasks; and the hashes by which the documents
        of the holdout are known.
    """
    every = [documents for parts in found.values() for documents in parts]
    keys = [key for documents in every for of in documents.keys.values() for key in of]
    labels = same_documents(keys)
    rest = iter(labels)
    for documents in every:
        documents.labels = {
            source: tuple(next(rest) for _ in ids) for source, ids in documents.ids.items()
        }
    pools = [
        DocumentPool(name_of(documents.task), documents.ids, documents.labels, counts)
        for name, parts in found.items()
        for documents, counts in zip(parts, _counts(name, parts, plan), strict=True)
    ]
    chosen = draw(pools, plan)
    held = {
        pool.labels[each.source][each.index]
        for pool, splits in zip(pools, chosen, strict=True)
        for each in splits.get("holdout", ())
    }
    in_order = iter(chosen)
    return (
        {name: [next(in_order) for _ in parts] for name, parts in found.items()},
        frozenset(
            key for of, label in zip(keys, labels, strict=True) if label in held for key in of
        ),
    )


def _counts(
    name: str, parts: Sequence[_Documents], plan: SplitPlan
) -> list[dict[Split, int | None]]:
    """Return how many items each task of a request gets of each split."""
    if plan.first:
        return [dict(plan.counts) for _ in parts]
    shares = {
        split: _share(
            name, split, count, [len(each.ids[plan.drawn_from.get(split)]) for each in parts]
        )
        for split, count in plan.counts.items()
    }
    return [{split: share[n] for split, share in shares.items()} for n in range(len(parts))]


def _share(
    name: str, split: Split, count: int | None, sizes: Sequence[int]
) -> Sequence[int | None]:
    if count is None or len(sizes) == 1:
        return [count] * len(sizes)
    if not len(sizes) <= count <= sum(sizes):
        raise TaskError(
            f'group "{name}": {count} items asked for {split}, but it has {len(sizes)} tasks with '
            f"{sum(sizes)} items; ask for a number in between"
        )
    return share_out(count, sizes)


def _documents(task: Task, source: Source | None) -> Any:  # noqa: ANN401 - a data set or a list
    have = {
        "train": task.has_training_docs(),
        "validation": task.has_validation_docs(),
        "test": task.has_test_docs(),
    }
    if source is None:
        if not (have["test"] or have["validation"]):
            raise TaskError(f'task "{name_of(task)}" has neither a test nor a validation split')
        return task.eval_docs
    if not have[source]:
        known = ", ".join(name for name, there in have.items() if there) or "none"
        raise TaskError(f'task "{name_of(task)}" has no {source} split; it has: {known}')
    if source == "train":
        return task.training_docs()
    return task.validation_docs() if source == "validation" else task.test_docs()
