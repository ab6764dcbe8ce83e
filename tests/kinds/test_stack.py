"""Stacks as a kind: their space, and a campaign of them."""

from __future__ import annotations

import pytest

from evomerge.config import SpaceSettings
from evomerge.kinds import KINDS, Kind
from evomerge.testing.kinds import KindSuite


class TestStack(KindSuite):
    @pytest.fixture
    def name(self) -> str:
        return "stack"

    @pytest.fixture
    def kind(self) -> Kind:
        return KINDS["stack"]

    @pytest.fixture(
        params=[
            {},
            {"order": "members", "repeats": 2, "parameters": {"scale": {"low": 0.5, "high": 1.5}}},
            {"members": ["base", "two", "best"], "layers": 2, "parameters": {"scale": 0.9}},
        ],
        ids=["defaults", "members first", "hybrid"],
    )
    def settings(self, request: pytest.FixtureRequest) -> SpaceSettings:
        return SpaceSettings(kind="stack", **request.param)
