from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from evomerge.workers.scratch import OWNER, ScratchFolder


def test_folders_of_dead_processes_are_removed_and_no_others(tmp_path: Path) -> None:
    script = (
        "import os; from pathlib import Path; from evomerge.workers.scratch import ScratchFolder\n"
        f"folder = ScratchFolder(Path({str(tmp_path)!r}))\n"
        "(folder.path / 'file').write_text('x'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -9
    (stale,) = tmp_path.iterdir()
    mine = ScratchFolder(tmp_path)
    assert stale.exists()  # it is young
    others = [tmp_path / name for name in ("evomerge-models-0", "evomerge-abc", "notes")]
    for folder in others:
        folder.mkdir()
    link = tmp_path / "evomerge-link"
    link.symlink_to(stale)
    for folder in (stale, mine.path):
        os.utime(folder, (1, 1))
    again = ScratchFolder(tmp_path)
    assert not stale.exists()
    assert set(tmp_path.iterdir()) == {mine.path, again.path, link, *others}
    assert (mine.path / OWNER).exists()
    for folder in (mine, again, again):
        folder.remove()
    assert set(tmp_path.iterdir()) == {link, *others}
