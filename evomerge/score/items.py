"""The chosen documents of every task and split, and lm-eval's requests for them, built once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any

from jinja2 import TemplateError
from lm_eval.api.group import Group
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from transformers import PreTrainedTokenizerBase
from xxhash import xxh3_128

from evomerge.errors import TaskError
from evomerge.score.answers import Gold, gold_of
from evomerge.score.metrics import check, directions
from evomerge.score.requested import PromptStyle, Source, SplitPlan, TaskRequest
from evomerge.score.splits import Drawn, content_of, document_ids, draw, share_out
from evomerge.score.tasks import FEWSHOT_SEED, TASK_FAULTS, leaves, load_task
from evomerge.trial import SPLITS, Split


@dataclass(frozen=True)
class Leaf:
    """One lm-eval task's chosen documents of one split.

    Attributes:
        task: lm-eval's task.
        ids: Stable ids, unique in the requested task or group.
        docs: The documents, in the order of the data set.
        requests: lm-eval's requests of each document, in the order of their `idx`.
        templated: Whether their prompts went through a chat template.
    """

    task: Task
    ids: tuple[str, ...]
    docs: tuple[Any, ...]
    requests: tuple[tuple[Instance, ...], ...]
    templated: bool

    @property
    def name(self) -> str:
        """The task's name."""
        return str(self.task.task_name)

    @cached_property
    def golds(self) -> tuple[Gold, ...]:
        """The gold answer of each document; TaskError where one has none."""
        pairs = zip(self.docs, self.requests, strict=True)
        return tuple(gold_of(self.task, doc, each, self.templated) for doc, each in pairs)


class Items:
    """Everything that is scored: per requested task and split, documents, ids and requests.

    Attributes:
        lm_eval_version: The version that rendered the prompts.
    """

    lm_eval_version: str = version("lm_eval")

    def __init__(
        self,
        loaded: Mapping[str, Task | Group],
        chosen: Mapping[tuple[str, Split], tuple[Leaf, ...]],
    ) -> None:
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
        if metric not in known:
            check(task, known, metric)
        return known[metric]

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
                    state.update(repr((split, identifier, [each.args for each in requests])).encode())
        return state.hexdigest()


def load_items(
    requests: Sequence[TaskRequest],
    *,
    tokenizer: PreTrainedTokenizerBase,
    tasks_path: str | None,
    plan: SplitPlan,
    prompt: PromptStyle = PromptStyle(),  # noqa: B008 - frozen
    allow_unsafe_code: bool = False,
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

    Raises:
        TaskError: A task is unknown, broken, without data, asked twice, has no such data set split,
            fewer items than asked, or an empty continuation.
    """
    render = _chat_template(tokenizer, prompt)
    loaded: dict[str, Task | Group] = {}
    chosen: dict[tuple[str, Split], tuple[Leaf, ...]] = {}
    for request in requests:
        if request.task in loaded:
            raise TaskError(f'task "{request.task}" is asked twice')
        item = load_task(request, tasks_path=tasks_path, allow_unsafe_code=allow_unsafe_code)
        loaded[request.task] = item
        for split, parts in _choose(request.task, leaves(item), plan).items():
            chosen[request.task, split] = tuple(
                _build(task, drawn, prompt, render, grouped=isinstance(item, Group))
                for task, drawn in parts
            )
    return Items(loaded, chosen)


def _choose(
    name: str, tasks: Sequence[Task], plan: SplitPlan
) -> dict[Split, list[tuple[Task, tuple[Drawn, ...]]]]:
    sources = {plan.drawn_from.get(split) for split in plan.counts}
    ids = [{source: document_ids(_documents(task, source)) for source in sources} for task in tasks]
    drawn = []
    for position, task in enumerate(tasks):
        counts = {
            split: _share(
                name, split, count, [len(each[plan.drawn_from.get(split)]) for each in ids]
            )[position]
            for split, count in plan.counts.items()
        }
        drawn.append(draw(str(task.task_name), ids[position], replace(plan, counts=counts)))
    return {
        split: [(task, part[split]) for task, part in zip(tasks, drawn, strict=True)]
        for split in plan.counts
    }


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
            raise TaskError(f'task "{task.task_name}" has neither a test nor a validation split')
        return task.eval_docs
    if not have[source]:
        known = ", ".join(name for name, there in have.items() if there) or "none"
        raise TaskError(f'task "{task.task_name}" has no {source} split; it has: {known}')
    if source == "train":
        return task.training_docs()
    return task.validation_docs() if source == "validation" else task.test_docs()


def _build(
    task: Task,
    drawn: Sequence[Drawn],
    prompt: PromptStyle,
    render: Callable[..., str] | None,
    *,
    grouped: bool,
) -> Leaf:
    name = str(task.task_name)
    documents = _documents(task, drawn[0].source) if drawn else ()
    docs = tuple(documents[each.index] for each in drawn)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    pool = _without(task, drawn)
    try:
        built = tuple(_requests(task, index, doc, prompt, render) for index, doc in enumerate(docs))
    except TASK_FAULTS as error:
        raise TaskError(
            f'task "{name}": a prompt cannot be built: {type(error).__name__}: {error}'
        ) from None
    finally:
        if pool is not None:
            task.sampler.replace_df(pool)
    _remember(task)
    ids = tuple(f"{name}/{each.id}" if grouped else each.id for each in drawn)
    return Leaf(task, ids, docs, built, render is not None)


def _without(task: Task, drawn: Sequence[Drawn]) -> Any:  # noqa: ANN401 - a data set or a list
    """Take items drawn from elsewhere than the scored split out of the few-shot examples.

    lm-eval never shows the scored document as an example, but only knows of the split it scores.
    Returns what to put back; None when nothing was taken out.
    """
    shots = task.get_config("num_fewshot")
    if not drawn or drawn[0].source is None or not shots or not hasattr(task, "sampler"):
        return None
    pool = list(task.sampler.fewshot_docs())
    chosen = {content_of(each.id) for each in drawn}
    kept = [
        doc
        for doc, each in zip(pool, document_ids(pool), strict=True)
        if content_of(each) not in chosen
    ]
    if len(kept) < int(shots):
        raise TaskError(
            f'task "{task.task_name}": {shots} few-shot examples asked, but only {len(kept)} are '
            "left beside the items"
        )
    task.sampler.replace_df(kept)
    return pool


def _requests(
    task: Task,
    index: int,
    doc: Any,  # noqa: ANN401 - any document
    prompt: PromptStyle,
    render: Callable[..., str] | None,
) -> tuple[Instance, ...]:
    """Build one document's requests, as `Task.build_all_requests` does."""
    context = task.fewshot_context(
        doc,
        num_fewshot=task.config.num_fewshot or 0,
        system_instruction=prompt.system_instruction,
        apply_chat_template=prompt.apply_chat_template,
        fewshot_as_multiturn=prompt.fewshot_as_multiturn,
        chat_template=render,
        gen_prefix=task.doc_to_prefix(doc),
    )
    built = task.construct_requests(
        doc=doc,
        ctx=context,
        metadata=(task.config["task"], index, task.config.repeats),
        apply_chat_template=prompt.apply_chat_template,
        chat_template=render,
    )
    requests = sorted(built if isinstance(built, list) else [built], key=lambda each: each.idx)
    for request in requests:
        if request.request_type == "loglikelihood" and not request.args[1]:
            raise TaskError(
                f'task "{task.task_name}": item {index} has an empty continuation; '
                "there is nothing to score"
            )
    return tuple(requests)


def _remember(task: Task) -> None:
    """Keep what a task renders of a document: lm-eval compiles its templates anew at every call."""
    for name in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        original = getattr(task, name, None)
        if original is not None and not hasattr(original, "remembered"):
            setattr(task, name, _Remembered(original))


class _Remembered:
    """A function of a document that is computed once for each."""

    remembered = True

    def __init__(self, original: Callable[..., Any]) -> None:
        self._original = original
        self._known: dict[
            int, tuple[Any, Any]
        ] = {}  # the document is kept, so its id stays its own

    def __call__(self, doc: Any, override: Any = None) -> Any:  # noqa: ANN401 - any document, any text
        if override is not None:
            return self._original(doc, override)
        if id(doc) not in self._known:
            self._known[id(doc)] = (doc, self._original(doc))
        value = self._known[id(doc)][1]
        return list(value) if isinstance(value, list) else value


def _chat_template(
    tokenizer: PreTrainedTokenizerBase, prompt: PromptStyle
) -> Callable[..., str] | None:
    """Render a conversation as `HFLM.apply_chat_template` does."""
    if not prompt.apply_chat_template:
        return None
    if not tokenizer.chat_template:
        raise TaskError("a chat template is asked for, but the base model's tokenizer has none")

    def apply(history: list[dict[str, str]], add_generation_prompt: bool) -> str:
        return str(
            tokenizer.apply_chat_template(
                history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def render(history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        try:
            return apply(history, add_generation_prompt)
        except TemplateError:  # some templates refuse a system message
            spoken = [message for message in history if message["role"] != "system"]
            return apply(spoken, add_generation_prompt)

    return render
