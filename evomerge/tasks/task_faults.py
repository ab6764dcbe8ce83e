"""Faults of task files: of groups before lm-eval builds them, of tasks once it has failed to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from datasets.exceptions import DatasetGenerationError, DatasetsError
from lm_eval.api.registry import AGGREGATION_REGISTRY, METRIC_REGISTRY
from lm_eval.api.task import Task
from lm_eval.config.task import TaskConfig

from evomerge.errors import TaskError, nearest

Config = Mapping[str, Any]
Index = Mapping[str, Any]
"""Name → lm-eval's entry of a task, group or tag."""

_SPLITS = ("test_split", "validation_split", "training_split", "fewshot_split")
_EXPECTED: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    **dict.fromkeys(_SPLITS, (str, "the name of one of the data's splits")),
    "dataset_path": (str, "a text, such as json"),
    "dataset_kwargs": (Mapping, "a mapping, such as {data_files: {test: FILE}}"),
    "generation_kwargs": (Mapping, "a mapping, such as {max_gen_toks: 64}"),
    "metric_list": (list, "a list, such as [{metric: exact_match}]"),
    "filter_list": (list, "a list, such as [{name: first, filter: [{function: take_first}]}]"),
    "num_fewshot": (int, "a whole number"),
}
_ABSENT = (ConnectionError, FileNotFoundError, DatasetsError)
_READERS = ("pyarrow", "pandas")
_NO_DOCUMENTS = ("corresponds to no data", "out of bounds for size 0")


def explain(name: str, config: Config, file: Path | None, error: BaseException) -> TaskError:
    """Return the error of a task that lm-eval cannot build, in the words of its author.

    `config` is the task's file with what it includes.
    """
    found = (
        _wrong_field(config)
        or _unknown_field(error)
        or _missing_field(config)
        or _wrong_split(config, error)
    )
    if found is not None:
        return TaskError(f'task "{name}": {found}', file=file)
    for split, path in _data_files(config):
        fault = _wrong_data(path, str(config.get("dataset_path")))
        if fault is not None:
            line, what = fault
            message = f'{what}; task "{name}" takes its {split} documents from it'
            return TaskError(message, file=path, line=line)
    if isinstance(error, _ABSENT) and not isinstance(error, DatasetGenerationError):
        return TaskError(
            f'the data of task "{name}" are missing: {first_line(error)}; fetch them first, or correct '
            "dataset_path in the task's file",
            file=file,
        )
    cause = _cause(error)
    data = _scored_file(config)
    if isinstance(cause, StopIteration) or any(text in str(cause) for text in _NO_DOCUMENTS):
        return TaskError(f'task "{name}": its data have no documents', file=data or file)
    if data is not None and type(cause).__module__.partition(".")[0] in _READERS:
        return TaskError(f'task "{name}": its data cannot be read: {first_line(cause)}', file=data)
    return TaskError(
        f'task "{name}" cannot be built: {described(cause)}; correct its file or its data',
        file=file,
    )


def check_metrics(task: Task) -> None:
    """Refuse a metric or an aggregation of which lm-eval only says, in its log, that it does not know it.

    Raises:
        TaskError: Naming the nearest that it knows.
    """
    name = task.config.task
    for entry in task.get_config("metric_list") or ():
        aggregation, metric = entry.get("aggregation"), entry.get("metric")
        if isinstance(aggregation, str) and aggregation not in AGGREGATION_REGISTRY:
            hint = nearest(aggregation, AGGREGATION_REGISTRY)
            raise TaskError(
                f'task "{name}": metric_list: unknown aggregation "{aggregation}"; {hint}'
            )
        called = task.OUTPUT_TYPE == "generate_until" and task.get_config("process_results") is None
        if called and isinstance(metric, str) and task._metric_fn_list.get(metric) is None:
            hint = nearest(metric, METRIC_REGISTRY)
            raise TaskError(f'task "{name}": metric_list: unknown metric "{metric}"; {hint}')


def reached(name: str, index: Index) -> Iterator[str]:
    """Yield a task or group and all that it contains by name, whether the index has it or not.

    Raises:
        TaskError: A group contains itself, or names its members in no way that lm-eval reads.
    """
    yield from _reached(name, index, (), {name})


def check_members(name: str, index: Index) -> None:
    """Check what lm-eval does not: that a group has members, all known, and aggregates metrics by name.

    Raises:
        TaskError: Naming the group's file, what was found and what was expected.
    """
    for each in reached(name, index):
        if each not in index:
            raise TaskError(
                f'group "{name}" contains an unknown task "{each}"; {_near(each, index)}',
                file=index[name].yaml_path,
            )
        config = _config(each, index)
        if "group" in config:
            _check_aggregates(each, config, index[each].yaml_path)


def described(error: BaseException) -> str:
    """Return an error's type and the first line of what it says."""
    kind, said = type(error).__name__, first_line(error)
    return kind if said == kind else f"{kind}: {said}"


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its type where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if any(map(str.isalnum, line))]
    return said[0][:300] if said else type(error).__name__


def _wrong_field(config: Config) -> str | None:
    for field, (kind, expected) in _EXPECTED.items():
        value = config.get(field)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            return f"{field}: found {value!r}, expected {expected}"
    for entry in config.get("metric_list") or ():
        if not isinstance(entry, Mapping) or "metric" not in entry:
            return f"metric_list: found {entry!r}, expected {{metric: NAME}}"
    return None


def _unknown_field(error: BaseException) -> str | None:
    known = [each.name for each in fields(TaskConfig)]
    found = re.search(r"unexpected keyword argument '(.+)'", str(error))
    if not (isinstance(error, TypeError) and "TaskConfig" in str(error) and found):
        return None
    return f'unknown key "{found[1]}"; {nearest(found[1], known)}'


def _missing_field(config: Config) -> str | None:
    if "class" in config:  # a Python task has all this in its code
        return None
    if config.get("dataset_path") is None and config.get("custom_dataset") is None:
        return "dataset_path is missing; expected a data set's name, or a format such as json"
    if config.get("test_split") is None and config.get("validation_split") is None:
        return "it has neither test_split nor validation_split, so nothing is to be scored"
    return None


def _wrong_split(config: Config, error: BaseException) -> str | None:
    if not (isinstance(error, KeyError) and error.args):
        return None
    field = next((each for each in _SPLITS if config.get(each) == error.args[0]), None)
    if field is None:
        return None
    files = (config.get("dataset_kwargs") or {}).get("data_files")
    have = f"; they have: {', '.join(map(str, files))}" if isinstance(files, Mapping) else ""
    return f'{field} is "{error.args[0]}", which its data do not have{have}'


def _data_files(config: Config) -> Iterator[tuple[str, Path]]:
    """Yield the split and the path of every local data file that a task names."""
    files = (config.get("dataset_kwargs") or {}).get("data_files")
    by_split = files if isinstance(files, Mapping) else {"train": files}
    for split, named in by_split.items():
        for each in named if isinstance(named, list) else [named]:
            if isinstance(each, str) and "://" not in each and not set(each) & set("*?["):
                yield str(split), Path(each).expanduser()


def _wrong_data(path: Path, form: str) -> tuple[int | None, str] | None:
    """Return line and fault of a data file; None where it has none that is known of."""
    if path.is_dir():
        return None, "is a folder; expected a file"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None, "no such file"
    except OSError as error:
        return None, f"cannot be read: {error.strerror or error}"
    if not content.strip():
        return None, "is empty; expected at least one document"
    if form != "json" or path.suffix not in (".json", ".jsonl"):
        return None
    try:
        return _wrong_json(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return None, "is not UTF-8 text; expected JSON"


def _wrong_json(text: str) -> tuple[int | None, str] | None:
    try:
        whole = json.loads(text)
    except ValueError:
        return _wrong_lines(text)
    documents = whole if isinstance(whole, list) else [whole]
    if not documents:
        return None, "has no documents"
    wrong = next((each for each in documents if not isinstance(each, dict)), None)
    return None if wrong is None else (None, f"found {wrong!r}, expected JSON objects")


def _wrong_lines(text: str) -> tuple[int, str] | None:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except ValueError as error:
            return number, f"not valid JSON: {error}"
        if not isinstance(document, dict):
            return number, f"found {line.strip()[:60]}, expected a JSON object"
    return None


def _cause(error: BaseException) -> BaseException:
    """Return what kept a data set from being built, of which its own error says nothing."""
    while isinstance(error, DatasetGenerationError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _scored_file(config: Config) -> Path | None:
    """Return the local file of the scored documents, where there is one."""
    split = config.get("test_split") or config.get("validation_split")
    return next((path for of, path in _data_files(config) if of == split and path.is_file()), None)


def _reached(name: str, index: Index, above: tuple[str, ...], seen: set[str]) -> Iterator[str]:
    yield name
    if name not in index:
        return
    entry = index[name]
    tagged = sorted(getattr(entry, "tags", ())) if entry.cfg is None else []
    for member in (*tagged, *_members(name, _config(name, index), entry.yaml_path)):
        if member in (*above, name):
            raise TaskError(f'group "{member}" contains itself', file=index[member].yaml_path)
        if member not in seen:
            seen.add(member)
            yield from _reached(member, index, (*above, name), seen)


def _members(name: str, config: Mapping[str, Any], file: Any) -> Iterator[str]:  # noqa: ANN401 - a path or None
    """Yield the names in a group's list; tasks and groups that are defined within it have none."""
    if "group" not in config:
        return
    members = config.get("task")
    if not isinstance(members, list) or not members:
        found = "nothing" if members in (None, []) else repr(members)
        raise TaskError(
            f'group "{name}": task: found {found}, expected a list of its tasks', file=file
        )
    for member in members:
        if isinstance(member, str):
            yield member
        elif isinstance(member, Mapping) and isinstance(member.get("task"), list):
            yield from _members(str(member.get("group")), {"group": "", **member}, file)
        elif isinstance(member, Mapping) and ("task" in member or "group" in member):
            if "dataset_path" not in member and "custom_dataset" not in member:
                yield str(member.get("group", member.get("task")))
        else:
            raise TaskError(
                f'group "{name}": task: found {member!r}, expected a name, or {{task: NAME, ...}}',
                file=file,
            )


def _check_aggregates(name: str, config: Mapping[str, Any], file: Any) -> None:  # noqa: ANN401 - a path or None
    given = config.get("aggregate_metric_list")
    for each in given if isinstance(given, list) else [given]:
        if each is not None and not (isinstance(each, Mapping) and "metric" in each):
            raise TaskError(
                f'group "{name}": aggregate_metric_list: found {each!r}, expected a list of '
                "{metric: NAME}",
                file=file,
            )


def _config(name: str, index: Index) -> Mapping[str, Any]:
    return index[name].cfg or {}


def _near(name: str, index: Index) -> str:
    close = nearest(name, index)
    return close if close.startswith("did") else f"{len(index)} are known"
