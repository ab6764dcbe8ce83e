"""What holds for every pool."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import job  # the one of this folder

from evomerge.trial import FailureKind
from evomerge.workers import Pool
