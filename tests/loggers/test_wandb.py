from __future__ import annotations

import json

import pytest

from evomerge.loggers.wandb import WandbLogger
from evomerge.testing.loggers import LoggerSuite

wandb = pytest.importorskip("wandb")
