import gc
import subprocess
import sys

import pytest

from evomerge.workers.imports import import_quickly


@pytest.mark.parametrize("collecting", [True, False])
def test_the_collector_is_left_as_it_was(collecting):
    before = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        assert import_quickly("json").loads("1") == 1
        with pytest.raises(ModuleNotFoundError):
            import_quickly("no_such_module")
        assert gc.isenabled() == collecting
    finally:
        (gc.enable if before else gc.disable)()


def test_what_workers_import_brings_no_statistics():
    code = "import sys, evomerge.racing; print('scipy.stats' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
