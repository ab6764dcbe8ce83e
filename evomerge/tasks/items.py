"""The chosen documents of every task and split, and lm-eval's requests for them, built once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

from lm_eval.api.group import Group
from lm_eval.api.task import Task
from transformers import PreTrainedTokenizerBase
from xxhash import xxh3_128

from evomerge.candidate.trial import SPLITS, Split
from evomerge.errors import TaskError
from evomerge.tasks.answers import target_text
from evomerge.tasks.documents import document_keys, same_documents
from evomerge.tasks.metrics import directions, is_gold, is_item_mean, resolve
from evomerge.tasks.rendering import Leaf, build_leaf, chat_template
from evomerge.tasks.requested import PromptStyle, Source, SplitPlan, TaskRequest
from evomerge.tasks.splits import Pool, content_of, document_ids, draw, share_out
from evomerge.tasks.tasks import TASK_FAULTS, leaves, load_task, name_of


class Items:
    """Everything that is scored: per requested task and split, documents, ids and requests.

    Attributes:
        tokenizer: Renders chat templates, and reads the prompts.
        lm_eval_version: The version that rendered the prompts.
    """

    lm_eval_version: str = version("lm_eval")

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

    @property
    def counts(self) -> Mapping[Split, Mapping[str, int]]:
        """Split → task → number of items."""
        return {
            split: {task: len(self.ids(task, split)) for task in self.tasks}
            for split in self.splits
        }

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
        """Check that a task has a metric and, for one on the gold answer, that every item has an answer.

        Args:
            task: The task or group.
            metric: By a name that `higher_is_better` takes.
            splits: Whose items must have a gold answer.

        Raises:
            TaskError: No such task, metric or split, or items without gold answer, which are counted.
        """
        self.higher_is_better(task, metric)
        for split in splits if is_gold(metric) else ():
            faults = [fault for leaf in self.leaves(task, split) for fault in leaf.gold_faults]
            if faults:
                raise TaskError(
                    f'task "{task}": {metric} needs a gold answer for every item, and {len(faults)} of '
                    f"{len(self.ids(task, split))} {split} items have none ({faults[0]}); take one of "
                    "the task's own metrics, or correct doc_to_target"
                )

    def race_fault(self, task: str, metric: str) -> str | None:
        """Say why candidates cannot be given up by this metric before all items are scored.

        Returns:
            One line; None for the plain mean of one number an item.

        Raises:
            TaskError: No such task, or the task has no such metric.
        """
        self.check_metric(task, metric)
        if is_item_mean(self._loaded[task], metric):
            return None
        return f'{metric} of task "{task}" is no plain mean of one number an item'

    def tokens(self, split: Split) -> int:
        """Return how many tokens a module reads and writes to score a split once, about.

        Prompts count once for all choices, answers as long as the gold answers.
        """
        texts: list[str] = []
        for task in self.tasks:
            for leaf in self.leaves(task, split):
                for doc, requests in zip(leaf.docs, leaf.requests, strict=True):
                    texts += dict.fromkeys(str(request.args[0]) for request in requests)
                    if leaf.task.OUTPUT_TYPE == "generate_until":
                        texts.append(_answer(leaf.task, doc))
                    else:
                        texts += [str(each.args[1]) for each in requests if len(each.args) > 1]
        encoded = self.tokenizer(texts)["input_ids"] if texts else []
        return sum(len(each) for each in encoded)

    @cached_property
    def digests(self) -> Mapping[str, str]:
        """Task → hash over every prompt of every split: equal digests, equal questions."""
        return {task: self._digest(task) for task in self.tasks}

    @property
    def digest(self) -> str:
        """Hash over every prompt of every task."""
        joined = "\n".join(f"{task} {digest}" for task, digest in sorted(self.digests.items()))
        return xxh3_128(joined.encode()).hexdigest()

    def _digest(self, task: str) -> str:
        state = xxh3_128()
        for split in self.splits:
            for leaf in self._chosen.get((task, split), ()):
                for identifier, requests in zip(leaf.ids, leaf.requests, strict=True):
                    state.update(
                        repr((split, identifier, [each.args for each in requests])).encode()
                    )
        return state.hexdigest()


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
        allow_unsafe_code: Whether tasks that execute generated code may be loaded.
        trust_remote_code: Whether data sets may bring code of their own (releases of `datasets` before 4).

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
            tasks_path=tasks_path,
            allow_unsafe_code=allow_unsafe_code,
            trust_remote_code=trust_remote_code,
        )
    library = _Library([(name, leaves(item)) for name, item in loaded.items()], plan)
    chosen: dict[tuple[str, Split], tuple[Leaf, ...]] = {}
    for name, item in loaded.items():
        for split in plan.counts:
            chosen[name, split] = tuple(
                build_leaf(
                    task,
                    library.documents[number][plan.drawn_from.get(split)],
                    library.drawn[number][split],
                    prompt,
                    render,
                    grouped=isinstance(item, Group),
                    hidden=frozenset() if split == "holdout" else library.held_out,
                )
                for number, task in library.leaves_of[name]
            )
    return Items(loaded, chosen, tokenizer)


class _Library:
    """The documents of all tasks, and those that were drawn.

    Attributes:
        leaves_of: Requested task or group → its tasks, each with its number.
        documents: By number, data set's split → documents.
        drawn: By number, split → drawn documents.
        held_out: Hashes by which the holdout documents are known.
    """

    def __init__(self, requested: Sequence[tuple[str, Sequence[Task]]], plan: SplitPlan) -> None:
        tasks = [task for _, parts in requested for task in parts]
        numbers = iter(range(len(tasks)))
        self.leaves_of = {
            name: [(next(numbers), task) for task in parts] for name, parts in requested
        }
        sources = {plan.drawn_from.get(split) for split in plan.counts}
        self.documents = [
            {source: _documents(task, source) for source in sources} for task in tasks
        ]
        ids = [
            {source: document_ids(docs) for source, docs in found.items()}
            for found in self.documents
        ]
        keys = [
            (number, source, _keys(tasks[number], docs, ids[number][source], plan))
            for number, found in enumerate(self.documents)
            for source, docs in found.items()
        ]
        every = [each for _, _, found in keys for each in found]
        labels = iter(same_documents(every))
        labelled: list[dict[Source | None, tuple[str, ...]]] = [{} for _ in tasks]
        for number, source, found in keys:
            labelled[number][source] = tuple(next(labels) for _ in found)
        pools = [
            Pool(name_of(task), ids[number], labelled[number], counts)
            for name, parts in self.leaves_of.items()
            for (number, task), counts in zip(
                parts, _counts(name, [ids[number] for number, _ in parts], plan), strict=True
            )
        ]
        self.drawn = draw(pools, plan)
        held = {
            labelled[number][each.source][each.index]
            for number, chosen in enumerate(self.drawn)
            for each in chosen.get("holdout", ())
        }
        flat = [label for number, source, _ in keys for label in labelled[number][source]]
        self.held_out = frozenset(
            key for found, label in zip(every, flat, strict=True) if label in held for key in found
        )


def _keys(
    task: Task, documents: Sequence[Any], ids: Sequence[str], plan: SplitPlan
) -> Sequence[frozenset[str]]:
    if plan.first:  # nothing is drawn
        return [frozenset({content_of(each)}) for each in ids]
    return document_keys(task, list(documents))


def _counts(
    name: str, ids: Sequence[Mapping[Source | None, Sequence[str]]], plan: SplitPlan
) -> list[dict[Split, int | None]]:
    """Return how many items each task of a request gets."""
    shares = {
        split: _share(name, split, count, [len(each[plan.drawn_from.get(split)]) for each in ids])
        for split, count in plan.counts.items()
    }
    return [{split: share[n] for split, share in shares.items()} for n in range(len(ids))]


def _answer(task: Task, doc: Any) -> str:  # noqa: ANN401 - any document
    try:
        return target_text(task, doc)
    except TASK_FAULTS:  # a task may have no gold answers
        return ""


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
