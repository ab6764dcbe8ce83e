"""Files and folders to be: whether they can be made, found out before any time is spent, and their modes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOTDIR
from pathlib import Path
from stat import S_IMODE

from evomerge.errors import UserError


def refuse_unwritable(path: Path, kind: type[UserError] = UserError, *, advice: str) -> None:
    """Refuse a path at which nothing can be made; leave nothing behind.

    Trying is the only test that also sees read-only file systems, quotas and overlong names.

    Args:
        path: Of a file or folder to be, or of a folder that is there.
        kind: The class of the error.
        advice: What to do instead, such as `choose another --out`.

    Raises:
        UserError: It cannot be made, or not be written to.
    """
    try:
        with _parents(path):
            if path.is_dir():
                with tempfile.TemporaryFile(dir=path):
                    pass
            elif path.exists():
                with path.open("ab"):
                    pass
            else:
                path.touch(exist_ok=False)
                path.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise kind(f"cannot be written: {reason}; {advice}", file=path) from None


def open_to_readers(folder: Path) -> None:
    """Give the files of a folder the mode that the umask asks for; safetensors makes its own private.

    Args:
        folder: Made by `mkdir`, so that its own mode shows the umask.
    """
    readable = S_IMODE(folder.stat().st_mode) & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(readable)


@contextmanager
def _parents(path: Path) -> Iterator[None]:
    """Make the folders in which a path lies; remove those that were missing."""
    made: list[Path] = []
    try:
        for folder in reversed(path.absolute().parents):
            if not folder.is_dir():
                if folder.exists():
                    raise NotADirectoryError(ENOTDIR, f"{folder} is not a folder")
                folder.mkdir()
                made.append(folder)
        yield
    finally:
        for folder in reversed(made):
            folder.rmdir()
