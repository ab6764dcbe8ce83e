"""YAML 1.2 files that know their own lines.

PyYAML takes a key given twice, reads `1e-3` as text and `no` as false; ruamel.yaml does none of it.
Campaign files and recipes are both read here, so that an error in either names file, line and field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.composer import ComposerError
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarstring import SingleQuotedScalarString

from evomerge.errors import UserError

Location = Sequence[str | int]
E = TypeVar("E", bound=UserError)

_PLAIN = re.compile(r"[\w./~](?:[\w ./:~+-]*\w)?")  # texts that ruamel itself quotes rightly


@dataclass(frozen=True)
class Document:
    """A YAML mapping with the place it came from.

    Attributes:
        path: The file; None for text that has none.
        data: Its content as plain dicts, lists and scalars.
        begins: Line of its first key, from 1, where others stand before it in the file; else None.
    """

    path: Path | None
    data: dict[str, Any]
    _marked: CommentedMap
    begins: int | None = None

    def line(self, location: Location) -> int | None:
        """Return the line (from 1) on which the value at `location` is given, or its nearest parent."""
        node: Any = self._marked
        line = self.begins
        for key in location:
            try:
                if isinstance(node, CommentedMap):
                    line = node.lc.key(key)[0] + 1
                elif isinstance(node, CommentedSeq):
                    line = node.lc.item(key)[0] + 1
                node = node[key]
            except (KeyError, IndexError, TypeError, AttributeError):
                break
        return line

    def error(self, kind: type[E], location: Location, message: str) -> E:
        """Build an error of `kind` that names this file, the line and the dotted field."""
        field = ".".join(str(part) for part in location) or None
        return kind(message, file=self.path, line=self.line(location), field=field)


def read(path: str | Path, kind: type[UserError] = UserError) -> Document:
    """Read one YAML mapping from a file.

    Args:
        path: The file.
        kind: The class of the errors raised.

    Raises:
        UserError: The file is missing or unreadable, is not YAML, gives a key twice, or is not a mapping.
    """
    return parse(_text(Path(path), kind), path=Path(path), kind=kind)


def read_all(path: str | Path, kind: type[UserError] = UserError) -> tuple[Document, ...]:
    """Read the YAML mappings of a file, one or several documents. Raises as `read` does."""
    text = _text(Path(path), kind)
    found = [_document(one, Path(path), kind) for one in _loaded(text, Path(path), kind, all_=True)]
    return (found[0], *(replace(one, begins=one._marked.lc.line + 1) for one in found[1:]))


def parse(text: str, *, path: Path | None = None, kind: type[UserError] = UserError) -> Document:
    """Parse one YAML mapping; `path` only serves the messages. Raises as `read` does."""
    (marked,) = _loaded(text, path, kind, all_=False)
    return _document(marked, path, kind)


def _text(path: Path, kind: type[UserError]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise kind("no such file; expected a YAML file", file=path) from None
    except OSError as error:
        reason = error.strerror or error
        raise kind(f"cannot be read: {reason}; expected a YAML file", file=path) from None
    except UnicodeDecodeError as error:
        raise kind(f"cannot be read: {error}", file=path) from None


def _loaded(text: str, path: Path | None, kind: type[UserError], *, all_: bool) -> list[Any]:
    yaml = YAML(typ="rt")
    try:
        return (list(yaml.load_all(text)) or [None]) if all_ else [yaml.load(text)]
    except DuplicateKeyError as error:
        found = str(error.problem).split(" with value")[0].removeprefix("found ")
        raise kind(
            f"{found}: a key may be given once only", file=path, line=_error_line(error)
        ) from None
    except ComposerError as error:
        if error.problem != "but found another document":
            raise _invalid(error, path, kind) from None
        raise kind(
            "a second YAML document begins here (---); expected one document in a file, put the "
            "others into files of their own",
            file=path,
            line=_error_line(error),
        ) from None
    except MarkedYAMLError as error:
        raise _invalid(error, path, kind) from None
    except YAMLError as error:
        raise kind(f"not valid YAML: {error}", file=path) from None


def _document(marked: Any, path: Path | None, kind: type[UserError]) -> Document:  # noqa: ANN401
    if not isinstance(marked, CommentedMap):
        kinds = {type(None): "nothing", CommentedSeq: "a list"}
        found = kinds.get(type(marked), "a single value")
        raise kind(f"found {found}, expected a mapping of fields", file=path, line=1)
    return Document(path=path, data=_plain(marked), _marked=marked)


def dump(data: Mapping[str, Any], header: str = "") -> str:
    """Write a mapping as YAML, floats in full (`repr`), lists of scalars on one line.

    Args:
        data: Plain dicts, lists and scalars.
        header: Comment lines to stand on top, without their `#`.
    """
    yaml = YAML(typ="rt")
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = StringIO()
    for line in header.splitlines():
        stream.write(f"# {line}\n" if line else "#\n")
    yaml.dump(_styled(dict(data)), stream)
    return stream.getvalue()


def _invalid(error: MarkedYAMLError, path: Path | None, kind: type[UserError]) -> UserError:
    problem = error.problem or error.context
    if problem and "'\\t'" in problem:
        problem = "found a tab; indent with spaces"
    return kind(f"not valid YAML: {problem}", file=path, line=_error_line(error))


def _error_line(error: MarkedYAMLError) -> int | None:
    mark = error.problem_mark or error.context_mark
    return None if mark is None else int(mark.line) + 1


def _plain(node: Any) -> Any:  # noqa: ANN401 - YAML is any
    if isinstance(node, Mapping):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    if isinstance(node, bool):
        return bool(node)
    for scalar in (int, float, str):  # ruamel's ScalarFloat and the like are their subclasses
        if isinstance(node, scalar):
            return scalar(node)
    return node


def _styled(value: Any) -> Any:  # noqa: ANN401 - YAML is any
    if isinstance(value, Mapping):
        return CommentedMap((key, _styled(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        styled = CommentedSeq(_styled(item) for item in value)
        if all(not isinstance(item, list | tuple | Mapping) for item in value):
            styled.fa.set_flow_style()
        return styled
    if isinstance(value, str) and value.isprintable() and not _PLAIN.fullmatch(value):
        return SingleQuotedScalarString(value)  # ruamel writes `[?0]` bare, and reads a key
    return value
