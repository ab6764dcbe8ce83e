"""Tasks by name, through lm-eval's TaskManager: the user's folder first, lm-eval's own where needed.

Indexing lm-eval's own thousands of task files takes seconds, so they are indexed only when a name is
not found in the user's folder.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import random
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import yaml  # type: ignore[import-untyped]
from jinja2 import TemplateError
from lm_eval.api.group import Group
from lm_eval.api.instance import Instance
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from evomerge.errors import TaskError, nearest
from evomerge.tasks.requested import TaskRequest
from evomerge.tasks.task_faults import (
    check_members,
    check_metrics,
    explain,
    first_line,
    reached,
)

FEWSHOT_SEED = 1234  # lm-eval's default, as are the seeds of the generators below
TASK_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    StopIteration,
    SyntaxError,
    TypeError,
    ValueError,
    TemplateError,
    yaml.YAMLError,
    datasets.exceptions.DatasetsError,
)
"""What a task's own code, templates and data raise when they are broken."""


def list_tasks(tasks_path: str | None = None, *, include_defaults: bool = True) -> tuple[str, ...]:
    """Return the names of all tasks and groups, sorted."""
    manager = _manager(_checked_folder(tasks_path), include_defaults)
    return tuple(sorted({*manager.all_subtasks, *manager.all_groups}))


def expand(names: Iterable[str], tasks_path: str | None = None) -> tuple[str, ...]:
    """Return the tasks and groups that names stand for, each once, as `lm_eval --tasks` takes them.

    Raises:
        TaskError: A name is unknown, or a pattern matches nothing.
    """
    folder = _checked_folder(tasks_path)
    found: dict[str, None] = {}
    for name in names:
        if any(sign in name for sign in "*?["):
            manager = _manager(folder, True)
            matching = sorted(fnmatch.filter(manager.all_tasks, name))
            if not matching:
                raise TaskError(f'no task is called anything like "{name}"')
        else:
            manager, matching = _manager_of(name, folder), [name]
        for one in matching:
            found |= dict.fromkeys(_tagged(one, manager) if one in manager.all_tags else [one])
    return tuple(found)


def load_task(
    request: TaskRequest,
    *,
    tasks_path: str | None = None,
    allow_unsafe_code: bool = False,
    trust_remote_code: bool = False,
) -> Task | Group:
    """Build one task or group, its data included, ready for `simple_evaluate`'s default seeds.

    Raises:
        TaskError: The name is unknown (the nearest is named), its file is broken, its data are
            missing, it executes code or reads images, or it is a tag, which is not scored as a whole.
    """
    manager = _manager_of(request.task, _checked_folder(tasks_path))
    if request.task in manager.all_tags:
        raise TaskError(
            f'"{request.task}" is a tag, which is not scored as a whole; name its tasks: '
            f"{', '.join(_tagged(request.task, manager))}"
        )
    check_members(request.task, manager.task_index)
    if allow_unsafe_code:  # the same consent, which `code_eval` asks for in its own way
        os.environ.setdefault("HF_ALLOW_CODE_EVAL", "1")
    else:
        _refuse_unsafe(request.task, manager)
    try:
        with _lm_eval_surroundings(trust_remote_code):
            built = manager.load([request.task])
    except TASK_FAULTS as error:
        config = manager.task_index[request.task].cfg or {}
        if "group" in config:
            _raise_of_member(request, manager, trust_remote_code)
        raise explain(request.task, config, _file_of(request.task, manager), error) from None
    for task in built["tasks"].values():
        _prepare(task, request, allow_unsafe_code)
    group = built.get("groups", {}).get(request.task)
    return group if group is not None else next(iter(built["tasks"].values()))


def document_counts(
    names: Sequence[str], *, tasks_path: str | None = None
) -> dict[str, tuple[int, ...]]:
    """Return task → documents that lm-eval scores; of a group one number a member. Raises as `load_task`."""
    return {
        name: tuple(
            len(task.eval_docs)
            for task in leaves(load_task(TaskRequest(name), tasks_path=tasks_path))
        )
        for name in names
    }


def leaves(loaded: Task | Group) -> tuple[Task, ...]:
    """Return the tasks of a group, or the task itself."""
    return tuple(loaded.get_all_tasks()) if isinstance(loaded, Group) else (loaded,)


def name_of(task: Task) -> str:
    """Return a task's name; lm-eval's own `task_name` draws a random number at every call."""
    return str(task.config.task)


def _tagged(tag: str, manager: TaskManager) -> list[str]:
    return sorted(manager.task_index[tag].tags)


def _raise_of_member(request: TaskRequest, manager: TaskManager, trust_remote_code: bool) -> None:
    """Raise the error of the first task of a group that cannot be built, if it fails alone, too."""
    for member in reached(request.task, manager.task_index):
        config = manager.task_index[member].cfg or {}
        if "group" in config or not config:
            continue
        try:
            with _lm_eval_surroundings(trust_remote_code):
                manager.load([member])
        except TASK_FAULTS as error:
            found = explain(member, config, _file_of(member, manager), error)
            message = f'{found.message} (in group "{request.task}")'
            raise TaskError(message, file=found.file, line=found.line) from None


def _checked_folder(tasks_path: str | None) -> str | None:
    if tasks_path is not None and not Path(tasks_path).is_dir():
        raise TaskError("no such folder; expected a folder of lm-eval task files", file=tasks_path)
    return tasks_path


@lru_cache(maxsize=8)
def _manager(tasks_path: str | None, include_defaults: bool) -> TaskManager:
    return _indexed(tasks_path, include_defaults)


def _indexed(tasks_path: str | None, include_defaults: bool) -> TaskManager:
    with _lm_eval_surroundings():
        try:
            return TaskManager(include_path=tasks_path, include_defaults=include_defaults)
        except TypeError:  # it sorts names, and one is not a text
            _raise_nameless_file(tasks_path)
            raise


def _manager_of(name: str, tasks_path: str | None) -> TaskManager:
    if tasks_path is not None:
        # Task files may have been written since the folder was last read: it is small, so read it again.
        own = _indexed(tasks_path, include_defaults=False)
        if name in own.task_index and _is_complete(name, own.task_index):
            return own
        if name not in own.task_index:
            _raise_broken_file(name, tasks_path)
    manager = _manager(tasks_path, True)
    if name not in manager.task_index:
        where = f" (lm-eval's own tasks, and {tasks_path})" if tasks_path else ""
        close = nearest(name, manager.task_index)
        hint = close if close.startswith("did") else f"{len(manager.task_index)} are known"
        raise TaskError(f'unknown task "{name}"{where}; {hint}')
    return manager


def _is_complete(name: str, index: Mapping[str, Any]) -> bool:
    """Whether every member that a group names is in the index (else lm-eval's own are needed)."""
    return all(member in index for member in reached(name, index))


def _raise_broken_file(name: str, tasks_path: str) -> None:
    """lm-eval skips files that it cannot read; say so where the wanted task may be in one of them."""
    for path in sorted(Path(tasks_path).glob("**/*.yaml")):
        try:
            config = load_yaml(path, resolve_func=False)
        except TASK_FAULTS as error:
            if path.stem == name or name in path.read_text(encoding="utf-8", errors="replace"):
                mark = getattr(error, "problem_mark", None)
                said = getattr(error, "problem", None) or first_line(error)
                line = None if mark is None else mark.line + 1
                raise TaskError(
                    f'task "{name}" cannot be read: {said}', file=path, line=line
                ) from None
            continue
        called = config.get("group", config.get("task"))
        if path.stem != name or called == name:
            continue
        if not isinstance(called, str):
            raise _nameless(path, called)
        raise TaskError(f'unknown task "{name}"; this file calls its task "{called}"', file=path)


def _raise_nameless_file(tasks_path: str | None) -> None:
    for path in sorted(Path(tasks_path).glob("**/*.yaml")) if tasks_path else ():
        try:
            config = load_yaml(path, resolve_func=False)
        except TASK_FAULTS:
            continue
        for key in ("group", "task"):
            if not isinstance(config.get(key, ""), str | list):
                raise _nameless(path, config[key], key)


def _nameless(path: Path, found: object, key: str = "task") -> TaskError:
    shown = "nothing" if found is None else repr(found)
    return TaskError(f"{key}: found {shown}, expected the {key}'s name", file=path)


def _refuse_unsafe(name: str, manager: TaskManager) -> None:
    for member in reached(name, manager.task_index):
        if (manager.task_index[member].cfg or {}).get("unsafe_code"):
            raise _unsafe(member)


def _unsafe(name: str) -> TaskError:
    return TaskError(
        f'task "{name}" executes code that the model writes; to let it, give --allow-unsafe-code to '
        "evomerge score, or scorer: {allow_unsafe_code: true} in a campaign"
    )


def _prepare(task: Task, request: TaskRequest, allow_unsafe_code: bool) -> None:
    name = name_of(task)
    check_metrics(task)
    if getattr(task, "UNSAFE_CODE", False) and not allow_unsafe_code:
        raise _unsafe(name)
    if getattr(task, "MULTIMODAL", False):
        raise TaskError(f'task "{name}" reads images or sound; only text tasks are supported')
    own = task.get_config("num_fewshot")
    if own is None or (request.num_fewshot is not None and own != 0):
        task.set_config(key="num_fewshot", value=request.num_fewshot or 0)
    _name_metrics(task)


def _name_metrics(task: Task) -> None:
    """Have lm-eval name the metrics of a function that returns several, such as humaneval's `pass@1`.

    It learns their names by scoring a document, so an empty answer to the first one is scored. One that
    cannot be scored leaves the function's own name.
    """
    listed = [entry["metric"] for entry in task.get_config("metric_list") or ()]
    functions = [metric for metric in listed if callable(metric)]
    if not functions or task.OUTPUT_TYPE != "generate_until":
        return
    with quiet(), suppress(*TASK_FAULTS):
        doc = next(iter(task.eval_docs))
        request = Instance("generate_until", doc, ("", {}), 0)
        request.resps = [""]
        first, *_ = task._filters
        first.apply([request])
        found = task.process_results(doc, [request.filtered_resps[first.name]])
        for name in {function.__name__ for function in functions} - set(found):
            task._aggregation_list.pop(name, None)


def _file_of(name: str, manager: TaskManager) -> Path | None:
    path = manager.task_index[name].yaml_path
    return None if path is None else Path(path)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what lm-eval and `datasets` log and warn of to themselves: what matters they raise, too."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "datasets")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel("CRITICAL")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _lm_eval_surroundings(trust_remote_code: bool = False) -> Iterator[None]:
    """What `simple_evaluate` seeds before it builds tasks, and quiet; all put back afterwards."""
    state, numpy_state = random.getstate(), np.random.get_state()
    bars = datasets.are_progress_bars_disabled()
    random.seed(0)
    np.random.seed(1234)
    datasets.disable_progress_bars()
    trusted = getattr(datasets.config, "HF_DATASETS_TRUST_REMOTE_CODE", None)
    if trusted is not None:
        datasets.config.HF_DATASETS_TRUST_REMOTE_CODE = trust_remote_code
    try:
        with quiet():
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)
        if trusted is not None:
            datasets.config.HF_DATASETS_TRUST_REMOTE_CODE = trusted
        if not bars:
            datasets.enable_progress_bars()
