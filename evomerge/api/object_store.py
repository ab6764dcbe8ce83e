"""Copy a results folder, or a part of it, to an object store by fsspec; nothing is ever deleted there."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from evomerge.errors import EvomergeError, UserError
from evomerge.progress import Display, NoDisplay, counted
from evomerge.store.copying import Part, files_to_copy

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

EXAMPLES = "s3://BUCKET/NAME, gs://…, az://…, hf://… or file:///FOLDER"
NAMED = 3
"""Files that a message lists."""
READ = 64 * 2**20
"""Bytes: where a store gives no checksum, a file up to this size is compared by reading it."""


@dataclass(frozen=True)
class Exported:
    """What an export did.

    Attributes:
        copied: Names of the files that were copied, relative to the results folder.
        skipped: Those that were there already.
    """

    copied: tuple[str, ...]
    skipped: tuple[str, ...]


def export(
    folder: str | Path,
    url: str,
    *,
    only: Part = "all",
    force: bool = False,
    display: Display | None = None,
) -> Exported:
    """Copy a campaign's results to an object store; run it again to go on or to update.

    Of `study.db` a consistent copy is taken, also while a search runs. A file is skipped where the store has
    it in the same size and with the same checksum; where the store gives none, with the same contents, or,
    of more than 64 MiB, in the same size and not older. Sizes, and checksums, are verified after each copy.

    Args:
        folder: The results folder.
        url: Where to, by any file system of fsspec: `s3://BUCKET/NAME`, `gs://`, `az://`, `hf://`, `file://`.
            Credentials are those that its library finds.
        only: `best` is the saved model, `report` the leaderboard's files, `all` everything but locks.
        force: Overwrite files that are there and differ.
        display: Shows progress.

    Raises:
        UserError: The results or the bucket are missing, the access is denied, the file system's package is
            not installed, or files differ and `force` is not given; nothing is copied then.
        EvomergeError: The store is out of reach, or has not what was copied.
    """
    display = display or NoDisplay()
    with TemporaryDirectory(prefix="evomerge-export-") as aside, _in_one_line(url):
        files = files_to_copy(Path(folder), only, Path(aside))
        store, root = _opened(url)
        there = {str(name): info for name, info in store.find(root, detail=True).items()}
        places = {name: f"{root}/{name}" for name in files}
        same = [name for name in files if _is_there(store, places[name], there, files[name])]
        missing = [name for name in files if name not in same]
        changed = [name for name in missing if places[name] in there]
        if changed and not force:
            raise UserError(
                f"{url}: has other contents of {_listed(changed)}; overwrite them with --force"
            )
        if changed:
            display.say(f"overwriting {_listed(changed)}")
        for name in counted(missing, display, "export", len(missing)):
            store.put_file(str(files[name]), places[name])
            _verify(store, places[name], files[name])
    return Exported(tuple(missing), tuple(same))


def _opened(url: str) -> tuple[AbstractFileSystem, str]:
    """Return the file system of an address, and the place there."""
    import fsspec
    from fsspec.registry import known_implementations

    protocol, separator, _ = url.partition("://")
    try:
        fsspec.get_filesystem_class(protocol if separator else url)
    except ValueError:
        raise UserError(
            f'found "{url}", expected an address such as {EXAMPLES}', field="URL"
        ) from None
    except ImportError:
        package = known_implementations[protocol]["class"].partition(".")[0]
        raise UserError(f"{url}: needs {package}; install it with: pip install {package}") from None
    options = {"auto_mkdir": True} if protocol in ("file", "local") else {}
    store, root = fsspec.core.url_to_fs(url, **options)
    return store, root.rstrip("/")


def _is_there(
    store: AbstractFileSystem, place: str, there: Mapping[str, Mapping[str, Any]], file: Path
) -> bool:
    """Tell whether the store has a file as it is."""
    info = there.get(place)
    if info is None or info["size"] != file.stat().st_size:
        return False
    equal = _equal(info, file)
    if equal is not None:
        return equal
    if info["size"] <= READ:  # times do not show a change within a tick, or during the copy
        return bool(store.cat_file(place) == file.read_bytes())
    try:
        modified = store.modified(place)
    except NotImplementedError:
        return False
    changed = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    return bool((modified if modified.tzinfo else modified.replace(tzinfo=UTC)) >= changed)


def _verify(store: AbstractFileSystem, place: str, file: Path) -> None:
    """Check that the store has what was copied. Raises EvomergeError."""
    store.invalidate_cache()
    info = store.info(place)
    found, expected = info["size"], file.stat().st_size
    if found != expected:
        raise EvomergeError(f"{place}: has {found} bytes after the copy, expected {expected}")
    if _equal(info, file) is False:
        raise EvomergeError(f"{place}: has another checksum after the copy than {file.name}")


def _equal(info: Mapping[str, Any], file: Path) -> bool | None:
    """Compare a file with the checksum of its copy; None: the store gives none that is sure to be one."""
    settings = info.get("content_settings") or {}  # Azure's
    if found := info.get("md5Hash") or settings.get("content_md5"):
        wanted = base64.b64decode(found) if isinstance(found, str) else bytes(found)
        return _digest(file, "md5") == wanted
    if found := (info.get("lfs") or {}).get("sha256"):  # the Hub's
        return _digest(file, "sha256").hex() == str(found)
    tag = str(info.get("ETag", "")).strip('"')  # S3's: of an encrypted or split object another hash
    return True if tag and _digest(file, "md5").hex() == tag else None


def _digest(file: Path, algorithm: str) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).digest()


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


@contextmanager
def _in_one_line(url: str) -> Iterator[None]:
    """Say in one line what a store's library raises."""
    try:
        yield
    except EvomergeError:
        raise
    except Exception as error:  # of any library
        why = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, FileNotFoundError):
            raise UserError(f"{url}: no such bucket or folder ({why})") from None
        if isinstance(error, PermissionError):
            raise UserError(f"{url}: access denied ({why}); check the credentials") from None
        if "credential" in f"{type(error).__name__} {why}".lower():
            raise UserError(f"{url}: no credentials ({why})") from None
        raise EvomergeError(f"{url}: the export failed: {why}") from error
