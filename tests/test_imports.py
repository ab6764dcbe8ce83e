import gc

import pytest

from evomerge.imports import import_quickly


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
