"""What a group of tasks names, read from its file before lm-eval builds it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evomerge.errors import TaskError, nearest

Index = Mapping[str, Any]
"""Name → lm-eval's entry of a task, group or tag."""


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
