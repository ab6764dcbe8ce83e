"""The gold answer of a document, as the text that follows its prompt; or why it has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.api.utils import ends_with_whitespace

from evomerge.errors import TaskError
from evomerge.tasks.task_faults import described
from evomerge.tasks.tasks import TASK_FAULTS


@dataclass(frozen=True)
class Gold:
    """What a document's gold answer is made of."""

    text: tuple[str, str] | None  # (prompt, answer) of a task that generates; None for others
    # Positions of the right answers among the document's requests (multiple choice), or (0,)
    choices: tuple[int, ...]


def gold_of(task: Task, doc: Any, requests: Sequence[Instance], templated: bool) -> Gold:  # noqa: ANN401 - any document
    """Find the gold answer of one document.

    A generative task's answer is its first target that is not blank, set off from the prompt as lm-eval
    sets off the answers of few-shot examples: by `target_delimiter`, by nothing behind a chat template
    or whitespace, by a space behind a `gen_prefix`.

    Raises:
        TaskError: The document has none: its answer is blank, or names a choice that does not exist.
    """
    try:
        return _gold_of(task, doc, requests, templated)
    except TASK_FAULTS as error:  # no doc_to_target, or one that does not fit this document
        raise TaskError(f"doc_to_target gives none ({described(error)})") from None


def _gold_of(task: Task, doc: Any, requests: Sequence[Instance], templated: bool) -> Gold:  # noqa: ANN401 - any document
    if task.OUTPUT_TYPE == "multiple_choice":
        return Gold(None, _right_choices(task, doc))
    if task.OUTPUT_TYPE != "generate_until":
        return Gold(None, (0,))
    context = str(requests[0].args[0])
    answer = target_text(task, doc)
    # A number in the task file itself stands for "there is none": its metric looks at the text alone.
    is_placeholder = isinstance(task.get_config("doc_to_target"), int)
    if is_placeholder and task.get_config("doc_to_choice") is None:
        raise TaskError("doc_to_target is a number, not a text")
    if not answer.strip():
        raise TaskError("its gold answer (doc_to_target) is empty")
    return Gold((context, _delimiter(task, doc, context, templated) + answer), ())


def target_text(task: Task, doc: Any) -> str:  # noqa: ANN401 - any document
    """Return a generative task's gold answer; the first that is not blank where it has several."""
    target = task.doc_to_target(doc)
    if task.get_config("doc_to_choice") is not None and isinstance(target, int):
        return str(task.doc_to_choice(doc)[target])
    if isinstance(target, list | tuple):
        texts = [str(each) for each in target if each is not None]
        return next((text for text in texts if text.strip()), "")
    return "" if target is None else str(target)


def _delimiter(task: Task, doc: Any, context: str, templated: bool) -> str:  # noqa: ANN401 - any document
    if ends_with_whitespace(context):
        return ""
    if task.doc_to_prefix(doc):
        return " "
    return "" if templated else str(task.get_config("target_delimiter") or "")


def _right_choices(task: Task, doc: Any) -> tuple[int, ...]:  # noqa: ANN401 - any document
    """Read the gold as `ConfigurableTask.process_results` reads it."""
    choices = task.doc_to_choice(doc)
    gold = task.doc_to_text(doc) if getattr(task, "multiple_input", 0) else task.doc_to_target(doc)
    if isinstance(gold, str):
        gold = choices.index(gold) if gold in choices else -1
    golds = tuple(int(index) for index in (gold if isinstance(gold, list | tuple) else (gold,)))
    right = tuple(index for index in golds if 0 <= index < len(choices))
    if not right:
        raise TaskError(f"its gold answer {gold!r} is none of its {len(choices)} choices")
    return right
