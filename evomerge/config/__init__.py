"""The campaign file: validated, frozen settings, and nothing else. All settings types live here."""

from evomerge.config.campaign import Campaign
from evomerge.config.models import Expert, Models
from evomerge.config.objectives import (
    TEACHER_MATCH,
    CostSettings,
    DrawnFrom,
    ItemCounts,
    Keep,
    Objective,
    PromptSettings,
)
from evomerge.config.search import Search
from evomerge.config.settings import DType, Settings
from evomerge.config.space import Bounds, Range, Searched, SpaceSettings
from evomerge.config.workers import ScorerSettings, Workers

__all__ = [
    "TEACHER_MATCH",
    "Bounds",
    "Campaign",
    "CostSettings",
    "DType",
    "DrawnFrom",
    "Expert",
    "ItemCounts",
    "Keep",
    "Models",
    "Objective",
    "PromptSettings",
    "Range",
    "ScorerSettings",
    "Search",
    "Searched",
    "Settings",
    "SpaceSettings",
    "Workers",
]
