"""A Python file of the user's that declares merge methods: known by name to a process, copied along."""

from __future__ import annotations

import linecache
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import xxhash

from evomerge.config import Campaign
from evomerge.config.faults import at_field
from evomerge.errors import CampaignError, UserError
from evomerge.merge.methods import METHODS, Method
from evomerge.merge.methods.declared import DECLARED

FILE = "merge_methods.py"
"""The copy in a results folder and beside recipes."""
MODULE = "evomerge_merge_methods"
"""What its module is called."""


@dataclass(frozen=True)
class MethodFile:
    """A file of merge methods; small, and picklable: workers get its text.

    Attributes:
        name: What messages call it.
        source: Its text.
        path: Where it was read, for messages.
    """

    name: str
    source: str
    path: str

    @classmethod
    def read(cls, path: str | Path, name: str | None = None) -> MethodFile:
        """Read a file; `name` is what it was called before it was copied.

        Raises:
            UserError: It is missing, or no text.
        """
        try:
            source = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            found = "no such file" if isinstance(error, FileNotFoundError) else str(error)
            expected = 'expected Python code with a function below @evomerge.method("NAME")'
            raise UserError(f"{found}; {expected}", file=path) from None
        return cls(name or Path(path).name, source, str(path))

    @classmethod
    def of(cls, campaign: Campaign, results: Path | None = None) -> MethodFile | None:
        """Return the file that a campaign names; of one that began, the copy in its results folder.

        Raises:
            CampaignError: It is missing, or no text.
        """
        if campaign.methods is None:
            return None
        with at_field("methods", CampaignError):
            path = Path(campaign.methods)
            return cls.read(path if results is None else results / FILE, path.name)

    @property
    def digest(self) -> str:
        """Equal for equal texts."""
        return xxhash.xxh3_128_hexdigest(self.source.encode())


@dataclass
class _Used:
    """What `use` was last given, and the methods that it declares."""

    file: MethodFile | None = None
    names: tuple[str, ...] = ()


_USED = _Used()


def use(file: MethodFile | None) -> None:
    """Make the methods of a file known to this process, in the place of those of an earlier one; run it once.

    Raises:
        UserError: It cannot be imported, declares no method, or one that there is already.
    """
    if file == _USED.file:
        return
    for name in _USED.names:
        del METHODS[name]
    _USED.file, _USED.names = None, ()
    if file is not None:
        found = _declared(file)
        METHODS.update(found)
        _USED.file, _USED.names = file, tuple(found)


def is_own(method: str) -> bool:
    """Tell whether a method was declared by the file that is in use."""
    return method in _USED.names


def remark(methods: Iterable[str]) -> str:
    """Return what a model card says of methods that the file in use declares; empty: there is none."""
    names = ", ".join(f"`{name}`" for name in sorted(set(filter(is_own, methods))))
    return names and (
        f"Its merge method {names} is none of evomerge's: `{FILE}`, beside the recipe, declares it, and "
        f"`evomerge merge recipe.yaml OUT_DIR --methods {FILE}` builds this model. mergekit cannot."
    )


def copy_beside(methods: Iterable[str], folder: Path) -> None:
    """Write the file in use into a folder, if it declares any of these methods."""
    if _USED.file is not None and any(map(is_own, methods)):
        (folder / FILE).write_text(_USED.file.source, encoding="utf-8")


def _declared(file: MethodFile) -> dict[str, Method]:
    found: dict[str, Method] = {}
    for one in _run(file):
        if one.name in METHODS or one.name in found:
            message = f'declares "{one.name}", which is a method already; give it another name'
            raise UserError(message, file=file.path)
        found[one.name] = one
    if not found:
        expected = 'expected a function below @evomerge.method("NAME")'
        raise UserError(f"declares no merge method; {expected}", file=file.path)
    return found


def _run(file: MethodFile) -> list[Method]:
    """Run the file as a module and return what it declares, whatever else it imports."""
    module = ModuleType(MODULE)
    sys.modules[MODULE] = module  # where dataclasses look
    lines = file.source.splitlines(keepends=True)
    linecache.cache[file.name] = (len(file.source), None, lines, file.name)  # for tracebacks
    before = len(DECLARED)
    try:
        exec(compile(file.source, file.name, "exec"), module.__dict__)
        return DECLARED[before:]
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        places = [frame.lineno for frame in frames if frame.filename == file.name]
        line = error.lineno if isinstance(error, SyntaxError) else next(reversed(places), None)
        reason = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"
        raise UserError(f"cannot be imported: {reason}", file=file.path, line=line) from error
    finally:
        del DECLARED[before:]
