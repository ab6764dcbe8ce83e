from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from evomerge.workers.scratch import own_folder


def test_folders_of_dead_processes_are_removed_and_no_others(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from evomerge.workers.scratch import own_folder; import os\n"
    )
    script += (
        f"(own_folder(Path({str(tmp_path)!r})) / 'file').write_text('x'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -9
    (stale,) = tmp_path.iterdir()
    mine = own_folder(tmp_path)
    others = [tmp_path / name for name in ("evomerge-models-0", "evomerge-abc", "notes")]
    for folder in others:
        folder.mkdir()
    link = tmp_path / f"{stale.name}-link"
    link.symlink_to(others[2])
    again = own_folder(tmp_path)
    assert not stale.exists()
    assert set(tmp_path.iterdir()) == {mine, again, link, *others}
    assert str(os.getpid()) in mine.name
