from __future__ import annotations

import random
from collections.abc import Callable

import conftest as shared
import pytest
