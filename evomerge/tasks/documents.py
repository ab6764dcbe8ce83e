"""Which documents are one and the same, across the tasks of a campaign.

Two documents are the same where their contents are equal, where the model is asked the same text, or where
a part of what it is asked is the same and tells documents apart: two tasks may ask one question in other
words, with other columns beside it, or in another order.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import lm_eval.utils
from lm_eval.api.task import Task
from xxhash import xxh3_64_hexdigest

from evomerge.tasks.tasks import TASK_FAULTS

# More documents of a task than that, or than that share of them, with one text: it marks none.
_SHARING, _SHARE = 8, 1 / 30
_IN_PROMPT = 0.9  # documents whose prompt holds a column's text, where it is part of the question
_TELLING = 0.5  # how many texts a column has, as a share of the number of prompts


def content_digest(document: Mapping[str, Any]) -> str:
    """Return 16 hex digits of the hash of a document's content."""
    return _digest(json.dumps(document, sort_keys=True, ensure_ascii=False, default=str))


def document_keys(task: Task, documents: Sequence[Mapping[str, Any]]) -> tuple[frozenset[str], ...]:
    """Return, for each document, the hashes by which it is known; the same documents share one.

    White space does not matter. A text that many documents of the task share marks none of them.
    """
    contents = [content_digest(document) for document in documents]
    with _templates_compiled_once():
        asked = [_asked(task, document) for document in documents]
    texts = [{text} - {""} for text in asked]
    for column in _telling_columns(documents, asked):
        for found, text in zip(texts, column, strict=True):
            found.update({text} - {""})
    owners = Counter(
        text
        for _, found in dict(zip(contents, texts, strict=True)).items()  # copies count once
        for text in found
    )
    count = len(set(contents))
    most = min(max(_SHARING, _SHARE * count), count - 1) if count > 1 else 1
    return tuple(
        frozenset({content, *(_digest(text) for text in found if owners[text] <= most)})
        for content, found in zip(contents, texts, strict=True)
    )


def same_documents(keys: Sequence[frozenset[str]]) -> tuple[str, ...]:
    """Return a label for each document; documents that are linked by shared keys have the same.

    The labels depend on the keys alone, not on the order of the documents.
    """
    above: dict[str, str] = {}

    def top(key: str) -> str:
        while above[key] != key:
            above[key] = above[above[key]]
            key = above[key]
        return key

    for found in keys:
        for key in found:
            above.setdefault(key, key)
        first, *others = sorted(top(key) for key in found)
        for other in others:
            above[other] = first  # the least stays on top
    return tuple(top(next(iter(found))) for found in keys)


def _asked(task: Task, document: Mapping[str, Any]) -> str:
    """Return what the model is asked: the text, or the choices or the target where there is none."""
    try:
        text = task.doc_to_text(document)
        if not isinstance(text, str) or not text.strip():
            if str(task.OUTPUT_TYPE) == "multiple_choice":
                text = "\n".join(map(str, task.doc_to_choice(document)))
            else:
                text = task.doc_to_target(document)
    except TASK_FAULTS:  # told where the document is needed
        return ""
    return _normal(text) if isinstance(text, str) else ""


def _telling_columns(
    documents: Sequence[Mapping[str, Any]], asked: Sequence[str]
) -> Iterator[list[str]]:
    """Yield the texts of columns that are part of the question and differ as the questions do."""
    prompts = len(set(asked) - {""})
    names = {name: None for document in documents for name in document}
    for name in names:
        pieces = [list(_strings(document.get(name))) for document in documents]
        filled = [n for n, found in enumerate(pieces) if found]
        within = sum(all(piece in asked[n] for piece in pieces[n]) for n in filled)
        column = ["\n".join(found) for found in pieces]
        telling = len(set(column) - {""}) >= _TELLING * prompts
        if filled and telling and within >= _IN_PROMPT * len(filled):
            yield column


def _strings(value: Any) -> Iterator[str]:  # noqa: ANN401 - a cell of a data set
    if isinstance(value, str):
        text = _normal(value)
        if text:
            yield text
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _strings(each)


def _normal(text: str) -> str:
    return " ".join(text.split())


def _digest(text: str) -> str:
    return xxh3_64_hexdigest(text.encode())


@contextmanager
def _templates_compiled_once() -> Iterator[None]:
    """lm-eval compiles a template for every document, which takes longer than to render it."""
    environment = lm_eval.utils.env
    original = environment.from_string
    environment.from_string = lru_cache(maxsize=64)(original)
    try:
        yield
    finally:
        del environment.from_string
