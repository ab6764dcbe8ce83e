"""Files of prompts, and the lm-eval tasks that they become once a teacher answered them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet  # type: ignore[import-untyped]
import yaml  # type: ignore[import-untyped]
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from xxhash import xxh3_128_hexdigest

from evomerge.errors import TaskError
from evomerge.tasks.rendering import chat_template
from evomerge.tasks.requested import PromptStyle

_FORMS = '{"prompt": TEXT}, {"text": TEXT} or {"messages": [{"role": "user", "content": TEXT}]}'
_FIELDS = ("prompt", "text", "messages")
_CODE = "teacher_task"
_STAND_IN = "?"


@dataclass(frozen=True)
class Prompts:
    """What a file of prompts becomes.

    Attributes:
        task: Name of the task.
        texts: Prompts as a model reads them, each once.
        max_tokens: Most tokens of an answer.
        until: Texts at which an answer ends.
    """

    task: str
    texts: tuple[str, ...]
    max_tokens: int
    until: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Equal for prompts that are answered alike."""
        return xxh3_128_hexdigest(repr((self.texts, self.max_tokens, self.until)).encode())


def read_prompts(path: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Read a file of JSON lines: `{"prompt": TEXT}`, `{"text": TEXT}` or `{"messages": [...]}`.

    Blank lines and other fields do not matter, and a prompt that comes again is left out.

    Args:
        path: The file.
        tokenizer: Its chat template renders messages, the beginning of an answer included.

    Raises:
        TaskError: Naming the line, the field, what was found and what was expected.
    """
    found: dict[str, None] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"cannot be read: {error}; expected JSON lines", file=path) from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            found[_prompt(line, tokenizer)] = None
        except TaskError as error:
            raise TaskError(error.message, file=path, line=number) from None
    if not found:
        raise TaskError(f"found no prompt, expected lines such as {_FORMS}", file=path)
    return tuple(found)


def write_task(
    folder: Path, prompts: Prompts, answers: Mapping[str, str] | None = None
) -> tuple[Path, ...]:
    """Write prompts and their answers as an lm-eval task: NAME.yaml, NAME.parquet, and their code.

    Args:
        folder: Where to.
        prompts: The prompts.
        answers: Prompt → answer, of those that become documents; None: all, with stand-ins for answers.

    Returns:
        The files.
    """
    if answers is None:
        answers = dict.fromkeys(prompts.texts, _STAND_IN)
    chosen = [text for text in prompts.texts if text in answers]
    columns = {"prompt": chosen, "answer": [answers[text] for text in chosen]}
    # Typed, or dates among the answers would be read as dates.
    table = {name: pyarrow.array(texts, pyarrow.string()) for name, texts in columns.items()}
    data = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(table), data)
    contents = {
        f"{prompts.task}.yaml": _task_file(prompts).encode(),
        f"{prompts.task}.parquet": data.getvalue(),
        f"{_CODE}.py": Path(__file__).with_name(f"{_CODE}.py").read_bytes(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return tuple(folder / name for name in contents)


def answers_digest(folder: Path, task: str) -> str:
    """Return a hash of the answers that `write_task` wrote. Raises TaskError: they are gone."""
    path = folder / f"{task}.parquet"
    try:
        return xxh3_128_hexdigest(path.read_bytes())
    except OSError as error:
        raise TaskError(f"cannot be read: {error.strerror}", file=path) from None


def _task_file(prompts: Prompts) -> str:
    config = {
        "task": prompts.task,
        "dataset_kwargs": {"file": f"{prompts.task}.parquet"},
        "training_split": "train",
        "validation_split": "validation",
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "prompt",
        "doc_to_target": "answer",
        "target_delimiter": "",
        "num_fewshot": 0,
        "generation_kwargs": {
            "until": list(prompts.until),
            "max_gen_toks": prompts.max_tokens,
            "do_sample": False,
        },
        "metric_list": [
            {"metric": "teacher_match", "aggregation": "mean", "higher_is_better": True}
        ],
        "metadata": {"version": 1.0},
    }
    code = {"custom_dataset": "documents", "process_results": "process_results"}
    functions = [f"{field}: !function {_CODE}.{name}\n" for field, name in code.items()]
    return str(yaml.safe_dump(config, sort_keys=False)) + "".join(functions)


def _prompt(line: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the prompt of one line."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        raise TaskError(f"found {_shown(line)}, expected JSON: {_FORMS}") from None
    if not isinstance(entry, dict):
        raise TaskError(f"found {_shown(json.dumps(entry))}, expected {_FORMS}")
    given = [field for field in _FIELDS if field in entry]
    if len(given) != 1:
        found = ", ".join(given or entry) or "none"
        raise TaskError(f"found the fields {found}, expected one of prompt, text and messages")
    value = entry[given[0]]
    if given == ["messages"]:
        return _rendered(value, tokenizer)
    return _text(value, given[0])


def _text(value: object, field: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TaskError(
            f"{field}: found {_shown(json.dumps(value))}, expected a text that is not empty"
        )
    try:
        value.encode()
    except UnicodeEncodeError:
        raise TaskError(f"{field}: found half a character, expected whole ones") from None
    return value


def _rendered(messages: object, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a conversation as the chat template writes it, up to the answer."""
    if not isinstance(messages, list) or not messages:
        raise TaskError(
            f"messages: found {_shown(json.dumps(messages))}, expected a list of "
            '{"role": ROLE, "content": TEXT}'
        )
    history = []
    for place, message in enumerate(messages):
        fields = message if isinstance(message, dict) else {}
        history.append(
            {key: _text(fields.get(key), f"messages.{place}.{key}") for key in ("role", "content")}
        )
    if history[-1]["role"] == "assistant":
        raise TaskError(
            f"messages.{len(history) - 1}.role: found the assistant's, expected one that it answers"
        )
    render = chat_template(tokenizer, PromptStyle(apply_chat_template=True))
    assert render is not None
    try:
        return str(render(history))
    except (TemplateError, TypeError, ValueError, LookupError) as error:
        said = str(error).partition("\n")[0] or type(error).__name__
        raise TaskError(f"messages: the chat template refuses them: {said}") from None


def _shown(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
