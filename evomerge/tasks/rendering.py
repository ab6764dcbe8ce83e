"""Chosen documents → lm-eval's requests for them, with lm-eval's prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from jinja2 import TemplateError
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from transformers import PreTrainedTokenizerBase

from evomerge.errors import TaskError
from evomerge.tasks.answers import Gold, gold_of
from evomerge.tasks.documents import document_keys
from evomerge.tasks.requested import PromptStyle
from evomerge.tasks.splits import DrawnItem, content_of
from evomerge.tasks.task_faults import described
from evomerge.tasks.tasks import FEWSHOT_SEED, TASK_FAULTS, name_of


@dataclass(frozen=True)
class Leaf:
    """One lm-eval task's chosen documents of one split."""

    task: Task  # lm-eval's task
    ids: tuple[str, ...]  # stable ids, unique in the requested task or group
    docs: tuple[Any, ...]  # the documents, in the order of the data set
    # lm-eval's requests of each document, in the order of their `idx`
    requests: tuple[tuple[Instance, ...], ...]
    templated: bool  # whether their prompts went through a chat template

    @property
    def name(self) -> str:
        """The task's name."""
        return name_of(self.task)

    @cached_property
    def golds(self) -> tuple[Gold | None, ...]:
        """The gold answer of each document; None where it has none."""
        return tuple(None if isinstance(each, TaskError) else each for each in self._found)

    @property
    def gold_faults(self) -> tuple[str, ...]:
        """Why documents have no gold answer, one reason for each of those that have none."""
        return tuple(each.message for each in self._found if isinstance(each, TaskError))

    @property
    def gold_texts(self) -> tuple[str, ...]:
        """The texts of the gold answers, of each document that has one its first."""
        found = zip(self.golds, self.texts(), strict=True)
        return tuple(text for gold, (_, text) in found if gold is not None)

    def choices(self, document: int) -> list[bool]:
        """Return of each choice of a multiple-choice document whether it is right.

        lm-eval may ask for more than the choices: for `acc_mutual_info`, once more without context.
        """
        gold, count = self.golds[document], len(self.task.doc_to_choice(self.docs[document]))
        return [gold is not None and choice in gold.choices for choice in range(count)]

    def answers(self, responses: Sequence[Sequence[Sequence[Any]]]) -> list[str]:
        """Return what a model answers to each document: the text that it writes, or the choice that it takes.

        Args:
            responses: By document and request the responses of each repeat, of which the first counts: a
                text, or a log-likelihood with whether the continuation is greedy.

        Returns:
            Empty texts where nothing is written and nothing chosen.
        """
        kind = self.task.OUTPUT_TYPE
        if kind == "generate_until":
            return [str(of_document[0][0]) for of_document in responses]
        if kind != "multiple_choice":
            return [""] * len(responses)
        found = []
        for doc, of_document in zip(self.docs, responses, strict=True):
            choices = self.task.doc_to_choice(doc)
            sums = [repeats[0][0] for repeats in of_document[: len(choices)]]
            found.append(str(choices[max(range(len(sums)), key=sums.__getitem__)]))
        return found

    def texts(self) -> list[tuple[str, str]]:
        """Return of each document its prompt, and its gold answer, empty where it has none."""
        golds = [
            ""
            if gold is None
            else requests[gold.choices[0]].args[-1]
            if gold.text is None
            else gold.text[1]
            for gold, requests in zip(self.golds, self.requests, strict=True)
        ]
        prompts = [str(requests[0].args[0]) for requests in self.requests]
        return list(zip(prompts, golds, strict=True))

    def excerpt(self, positions: Sequence[int]) -> Leaf:
        """Return some of the documents as a leaf of their own."""
        if len(positions) == len(self.docs):
            return self
        return replace(
            self,
            ids=tuple(self.ids[each] for each in positions),
            docs=tuple(self.docs[each] for each in positions),
            requests=tuple(self.requests[each] for each in positions),
        )

    @cached_property
    def _found(self) -> tuple[Gold | TaskError, ...]:
        return tuple(
            self._gold(doc, requests)
            for doc, requests in zip(self.docs, self.requests, strict=True)
        )

    def _gold(self, doc: Any, requests: Sequence[Instance]) -> Gold | TaskError:  # noqa: ANN401
        try:
            return gold_of(self.task, doc, requests, self.templated)
        except TaskError as error:
            return error


def build_leaf(
    task: Task,
    documents: Any,  # noqa: ANN401 - a data set or a list
    drawn: Sequence[DrawnItem],
    prompt: PromptStyle,
    render: Callable[..., str] | None,
    *,
    grouped: bool,
    hidden: frozenset[str] = frozenset(),
) -> Leaf:
    """Build the requests of chosen documents, as `Task.build_all_requests` does for all.

    Args:
        task: The task.
        documents: The data set's split that they were drawn from.
        drawn: Which documents.
        prompt: How prompts are rendered.
        render: The chat template, from `chat_template`; None: no template.
        grouped: Whether ids carry the task's name, as the tasks of one group need.
        hidden: Hashes (`document_keys`) of documents that are not few-shot examples.

    Raises:
        TaskError: A prompt cannot be built, a continuation is empty, or too few examples are left.
    """
    name = name_of(task)
    docs = tuple(documents[each.index] for each in drawn)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    pool = _without(task, drawn, hidden)
    try:
        built = tuple(_requests(task, index, doc, prompt, render) for index, doc in enumerate(docs))
    except TASK_FAULTS as error:
        fault = _shortage(task) or f"a prompt cannot be built: {described(error)}"
        raise TaskError(f'task "{name}": {fault}') from None
    finally:
        if pool is not None:
            task.sampler.replace_df(pool)
    _remember(task)
    ids = tuple(f"{name}/{each.id}" if grouped else each.id for each in drawn)
    return Leaf(task, ids, docs, built, render is not None)


def chat_template(
    tokenizer: PreTrainedTokenizerBase, prompt: PromptStyle
) -> Callable[..., str] | None:
    """Return what renders a conversation, as `HFLM.apply_chat_template` does; None without a template.

    Raises:
        TaskError: A template is asked for, but the tokenizer has none.
    """
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


def _without(task: Task, drawn: Sequence[DrawnItem], hidden: frozenset[str]) -> Any:  # noqa: ANN401 - a data set or a list
    """Take hidden documents, and items drawn from elsewhere than the scored split, out of the examples.

    lm-eval never shows the scored document as an example, but only knows of the split it scores.
    Returns what to put back; None when nothing was taken out.
    """
    shots = int(task.get_config("num_fewshot") or 0)
    if not drawn or not shots or not hasattr(task, "sampler"):
        return None
    pool = list(task.sampler.fewshot_docs())
    chosen = {content_of(each.id) for each in drawn if each.source is not None}
    if not chosen and not hidden:
        return None
    keys = document_keys(task, pool)
    kept = [doc for doc, found in zip(pool, keys, strict=True) if not found & (hidden | chosen)]
    if len(kept) == len(pool):
        return None
    scored_too = task.fewshot_cfg.split == task.config.test_split  # lm-eval draws one to spare
    if len(kept) < shots + scored_too:
        raise TaskError(
            f'task "{name_of(task)}": {shots} few-shot examples asked, but only {len(kept)} are '
            "left beside the items; ask for fewer items or examples"
        )
    task.sampler.replace_df(kept)
    return pool


def _shortage(task: Task) -> str | None:
    """Say that there are too few documents to take the few-shot examples from; None if there are enough."""
    shots = int(task.get_config("num_fewshot") or 0)
    if not shots or not hasattr(task, "sampler"):
        return None
    pool = len(task.sampler.fewshot_docs())
    if pool > shots:
        return None
    return (
        f"{shots} few-shot examples asked for (num_fewshot), but there are {pool} documents to take them "
        "from, the scored one among them; ask for fewer"
    )


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
        fewshot_as_multiturn=prompt.apply_chat_template and prompt.fewshot_as_multiturn,
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
    kind = "loglikelihood" if task.OUTPUT_TYPE == "multiple_choice" else str(task.OUTPUT_TYPE)
    kinds = sorted({request.request_type for request in requests})
    if kinds != [kind] or (kind == "generate_until" and len(requests) > 1):
        raise TaskError(
            f'task "{name_of(task)}": item {index} makes {len(requests)} requests, {" and ".join(kinds)}; '
            f"expected {kind} only" + (", one a document" if kind == "generate_until" else "")
        )
    for request in requests:
        if request.request_type == "loglikelihood" and not request.args[1]:
            raise TaskError(
                f'task "{name_of(task)}": item {index} has an empty continuation; '
                "there is nothing to score"
            )
    return tuple(requests)


def _remember(task: Task) -> None:
    """Keep what a task renders of a document: lm-eval compiles its templates again at every call."""
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
