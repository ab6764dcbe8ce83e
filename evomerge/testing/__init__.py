"""Test suites for a method, sampler, pool, kind, backend, report format or logger; and a simulator.

Each suite is a class of pytest tests. Derive from it, override the fixtures that it names, and pytest runs
every property that evomerge relies on:

    from evomerge.testing.pools import PoolSuite

    class TestMyPool(PoolSuite):
        @pytest.fixture
        def open_pool(self):
            return MyPool

They need pytest, which the package itself does not, nor `evomerge.testing.simulate`: a search on workers
that do not exist, in virtual time.
"""

from contextlib import suppress

with suppress(ModuleNotFoundError):
    import pytest

    pytest.register_assert_rewrite(
        *(
            f"{__name__}.{suite}"
            for suite in ("pools", "methods", "samplers", "kinds", "backends", "formats", "loggers")
        )
    )
