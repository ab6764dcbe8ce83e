from __future__ import annotations

from tests.combine.mixtures import families
from tests.scoring_family import subject

__all__ = ["families", "subject"]
