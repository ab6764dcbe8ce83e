import os

import pytest

from evomerge.config.destination import open_to_readers, refuse_unwritable
from evomerge.errors import ResultsError


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("path", ["new", "deep/er/new", "folder", "file"])
def test_what_can_be_made_is_let_pass_and_left_as_it_was(tmp_path, path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    before = tree(tmp_path)
    refuse_unwritable(tmp_path / path, ResultsError, advice="go elsewhere")
    assert tree(tmp_path) == before
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    "path", ["file/new", "file/deep/er/new", "n" * 300, "new/" + "n" * 300, "/proc/new"]
)
def test_what_cannot_be_made_is_refused_and_nothing_is_left(tmp_path, path):
    (tmp_path / "file").write_text("kept")
    before = tree(tmp_path)
    with pytest.raises(ResultsError, match=r"cannot be written: .*; go elsewhere"):
        refuse_unwritable(tmp_path / path, ResultsError, advice="go elsewhere")
    assert tree(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_the_right_to_write_is_refused(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(ResultsError, match="Permission denied"):
        refuse_unwritable(tmp_path / "new", ResultsError, advice="go elsewhere")
    tmp_path.chmod(0o755)


@pytest.mark.parametrize(("mask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_private_files_are_opened_as_the_umask_says(tmp_path, mask, expected):
    before = os.umask(mask)
    try:
        folder = tmp_path / "made"
        (folder / "deep").mkdir(parents=True)
        for path in (folder / "a", folder / "deep" / "b"):
            path.touch(mode=0o600)
        open_to_readers(folder)
    finally:
        os.umask(before)
    assert {p.stat().st_mode & 0o777 for p in folder.rglob("*") if p.is_file()} == {expected}
